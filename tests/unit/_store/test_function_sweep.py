"""Which functions a sweep removes, when it reads, and how much."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from palpable._store import function_sweep
from palpable._store.function_sweep import FunctionSweep


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Ten tasks a step; a task without a request is one that is done."""
    monkeypatch.setattr(function_sweep, "STEP_ROWS", 10)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript("""
        CREATE TABLE tasks (sequence INTEGER PRIMARY KEY, function_key TEXT);
        CREATE TABLE requests (sequence INTEGER PRIMARY KEY);
        CREATE TABLE functions (key TEXT PRIMARY KEY);""")
    yield connection
    connection.close()


def _add(connection: sqlite3.Connection, sequence: int, key: str) -> None:
    connection.execute("INSERT INTO tasks VALUES (?, ?)", (sequence, key))
    connection.execute("INSERT INTO requests VALUES (?)", (sequence,))


def _functions(connection: sqlite3.Connection, *keys: str) -> set[str]:
    connection.executemany("INSERT INTO functions VALUES (?)", [(key,) for key in keys])
    return set(keys)


def _stored(connection: sqlite3.Connection) -> set[str]:
    return {key for (key,) in connection.execute("SELECT key FROM functions")}


def _finish(sweep: FunctionSweep, connection: sqlite3.Connection) -> int:
    steps = 1
    while sweep.step(connection):
        steps += 1
    return steps


def test_a_sweep_keeps_what_the_first_and_the_last_task_refer_to(connection: sqlite3.Connection) -> None:
    stored = _functions(connection, "first", "last", "none")
    for sequence in range(1, 36):
        _add(connection, sequence, {1: "first", 35: "last"}.get(sequence, ""))
    sweep = FunctionSweep(stored)
    assert _finish(sweep, connection) == 4
    assert _stored(connection) == stored == {"first", "last"}


def test_a_sweep_ends_early_when_all_functions_were_seen(connection: sqlite3.Connection) -> None:
    stored = _functions(connection, "a")
    for sequence in range(1, 100):
        _add(connection, sequence, "a")
    assert _finish(FunctionSweep(stored), connection) == 1
    assert stored == {"a"}


def test_a_task_that_is_added_during_a_sweep_keeps_its_function(connection: sqlite3.Connection) -> None:
    stored = _functions(connection, "old", "new", "none")
    for sequence in range(100, 130):
        _add(connection, sequence, "old")
    sweep = FunctionSweep(stored)
    assert sweep.step(connection)
    _add(connection, 5, "new")  # a number the sweep has passed
    sweep.note_writing({"new"}, 0)
    _finish(sweep, connection)
    assert _stored(connection) == {"old", "new"}


def test_a_function_that_is_added_during_a_sweep_stays(connection: sqlite3.Connection) -> None:
    stored = _functions(connection, "none")
    for sequence in range(1, 30):
        _add(connection, sequence, "")
    sweep = FunctionSweep(stored)
    assert sweep.step(connection)
    stored |= _functions(connection, "new")
    _finish(sweep, connection)
    assert _stored(connection) == {"new"}


def test_nothing_is_read_when_nothing_was_removed(connection: sqlite3.Connection) -> None:
    stored = _functions(connection, "a")
    _add(connection, 1, "a")
    sweep = FunctionSweep(stored)
    _finish(sweep, connection)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    assert not sweep.step(connection)
    assert statements == []


def test_a_long_sweep_is_not_repeated_for_a_few_removals(connection: sqlite3.Connection) -> None:
    stored = _functions(connection, "first", "last", "none")
    for sequence in range(1, 801):
        _add(connection, sequence, {1: "first", 800: "last"}.get(sequence, ""))
    sweep = FunctionSweep(stored)
    _finish(sweep, connection)
    sweep.note_writing(set(), 50)
    assert not sweep.step(connection)
    sweep.note_writing(set(), 50)
    assert sweep.step(connection)
