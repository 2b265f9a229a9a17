"""Tables line up, fit a terminal, and are never cut where a program may read them."""

from __future__ import annotations

import pytest

from palpable._cli.table import Column, table_lines

Row = tuple[str, ...]
ID: Column[Row] = Column("ID", lambda row: row[0])
NAME: Column[Row] = Column("NAME", lambda row: row[1], may_be_cut=True)
SIZE: Column[Row] = Column("SIZE", lambda row: row[2], is_number=True, rank=1)
KIND: Column[Row] = Column("KIND", lambda row: row[3], rank=2)
COLUMNS = [ID, NAME, SIZE, KIND]
ROWS: list[Row] = [("1", "a", "10 MB", "small"), ("22", "a name that is long", "5 MB", "")]


def test_columns_line_up_numbers_at_the_right() -> None:
    assert list(table_lines(COLUMNS, ROWS)) == [
        "ID  NAME                  SIZE  KIND",
        "1   a                    10 MB  small",
        "22  a name that is long   5 MB  -",
    ]


def test_a_long_cell_is_cut_before_a_column_is_left_out() -> None:
    assert list(table_lines(COLUMNS, ROWS, width=30)) == [
        "ID  NAME           SIZE  KIND",
        "1   a             10 MB  small",
        "22  a name that…   5 MB  -",
    ]


def test_columns_of_the_highest_rank_are_left_out_first_and_the_rest_has_their_room() -> None:
    assert list(table_lines(COLUMNS, ROWS, width=29)) == [
        "ID  NAME                 SIZE",
        "1   a                   10 MB",
        "22  a name that is lo…   5 MB",
    ]


@pytest.mark.parametrize("width", [1, 5, 16])
def test_what_matters_most_stays_however_narrow_the_terminal(width: int) -> None:
    assert list(table_lines(COLUMNS, ROWS, width=width)) == ["ID  NAME", "1   a", "22  a name that…"]


def test_an_optional_column_that_is_empty_is_left_out() -> None:
    note: Column[Row] = Column("NOTE", lambda row: row[3], is_optional=True)
    assert next(table_lines([ID, note], ROWS)) == "ID  NOTE"
    assert next(table_lines([ID, note], ROWS[1:])) == "ID"


def test_colours_do_not_move_the_columns() -> None:
    coloured: Column[Row] = Column("ID", lambda row: row[0], colour=lambda row: "red" if row[0] == "1" else None)
    lines = list(table_lines([coloured, KIND], ROWS, has_colours=True))
    assert lines[1:] == ["\x1b[31m1 \x1b[0m  small", "22  -"]
    assert "\x1b" not in "".join(table_lines([coloured, KIND], ROWS))


def test_a_table_without_rows_is_its_headings() -> None:
    assert list(table_lines(COLUMNS, [])) == ["ID  NAME  SIZE  KIND"]
