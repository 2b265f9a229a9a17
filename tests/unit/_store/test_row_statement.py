"""Many rows in one statement."""

from __future__ import annotations

import sqlite3

import pytest

from palpable._store.row_statement import LARGEST, RowStatement

ADD = RowStatement("INSERT INTO numbers (number, text) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL", 2)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, LARGEST - 1, LARGEST, LARGEST + 1, 3 * LARGEST + 7])
def test_every_row_arrives_once_whatever_their_number(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT)")
    rows = [(number, f"text {number}") for number in range(count)]
    ADD.run(connection, rows)
    assert connection.execute("SELECT * FROM numbers ORDER BY number").fetchall() == rows
    connection.close()


def test_some_hundred_rows_are_few_statements() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT)")
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    ADD.run(connection, [(number, "") for number in range(LARGEST + 100)])
    assert len(statements) == 2
    connection.close()
