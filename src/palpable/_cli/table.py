"""Tables: columns that line up, fitted to a terminal; never cut where a program may read them.

Not `rich`, which takes longer to import than a command takes to run, and cuts cells when its output is piped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import click

Row = TypeVar("Row")

GAP = "  "
LEAST_CUT_WIDTH = 12
"""A cell is cut down to so many characters before a column is left out."""


class Column(NamedTuple, Generic[Row]):
    """One column.

    Attributes:
        title: its heading.
        cell: returns what stands in it for a row; "" is shown as "-".
        is_number: aligned at the right.
        may_be_cut: long cells are cut where the terminal is narrow.
        rank: where the terminal is narrow still, columns are left out, the highest rank first; those of rank 0 never.
        is_optional: left out when it is empty in all rows.
        colour: returns the colour of a row's cell; None: the terminal's own.
    """

    title: str
    cell: Callable[[Row], str]
    is_number: bool = False
    may_be_cut: bool = False
    rank: int = 0
    is_optional: bool = False
    colour: Callable[[Row], str | None] = lambda row: None


def table_lines(
    columns: Sequence[Column[Row]], rows: Sequence[Row], *, width: int | None = None, has_colours: bool = False
) -> Iterator[str]:
    """Yield the lines of a table, its headings first.

    Args:
        width: of the terminal; None: as wide as it takes.
    """
    cells = [[column.cell(row) for row in rows] for column in columns]
    shown = [number for number, column in enumerate(columns) if not column.is_optional or any(cells[number])]
    widths = {number: max(map(len, [columns[number].title, *(cells[number] or ["-"])])) for number in shown}
    if width is not None:
        widths = _fitted(widths, columns, width)
    shown = list(widths)
    yield _line([_aligned(columns[number].title, widths[number], columns[number]) for number in shown])
    for index, row in enumerate(rows):
        line = []
        for number in shown:
            column = columns[number]
            text = _aligned(cells[number][index] or "-", widths[number], column)
            colour = column.colour(row) if has_colours else None
            line.append(click.style(text, fg=colour) if colour else text)
        yield _line(line)


def _fitted(natural: dict[int, int], columns: Sequence[Column[Row]], width: int) -> dict[int, int]:
    """Return widths that fit: less for what may be cut, then without whole columns; as near as can be."""
    natural = dict(natural)
    while True:
        widths = dict(natural)
        excess = sum(widths.values()) + len(GAP) * (len(widths) - 1) - width
        for number in widths:
            if columns[number].may_be_cut and excess > 0:
                least = min(widths[number], max(LEAST_CUT_WIDTH, len(columns[number].title)))
                cut = min(excess, widths[number] - least)
                widths[number] -= cut
                excess -= cut
        rank = max(columns[number].rank for number in widths)
        if excess <= 0 or rank == 0:
            return widths
        del natural[max(number for number in widths if columns[number].rank == rank)]


def _aligned(text: str, width: int, column: Column[Row]) -> str:
    if len(text) > width:
        text = text[: width - 1].rstrip() + "…"
    return text.rjust(width) if column.is_number else text.ljust(width)


def _line(cells: list[str]) -> str:
    return GAP.join(cells).rstrip()
