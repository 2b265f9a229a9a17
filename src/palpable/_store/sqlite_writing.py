"""A batch of changes as SQL: one transaction, few steps.

Runs in: the writer thread of the server.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final
from zlib import crc32

import msgspec

from palpable._store.row_statement import RowStatement
from palpable._store.store import Batch, StoreBroken, StoredResult, TaskRow, TaskState

STATE_COLUMNS: Final = TaskState.__struct_fields__[1:]
TASK_COLUMNS: Final = (*(name for name in TaskRow.__struct_fields__[1:] if name != "priority"), "checksum")

_REAL_ROWS: Final = "SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"

_ADD_TASKS: Final = RowStatement(
    f"INSERT INTO tasks (sequence, {', '.join(TASK_COLUMNS)}) {_REAL_ROWS}", 1 + len(TASK_COLUMNS)
)
_ADD_STATES: Final = RowStatement(
    f"INSERT INTO states (sequence, {', '.join(STATE_COLUMNS)}, priority) {_REAL_ROWS}", 2 + len(STATE_COLUMNS)
)
_ADD_REQUESTS: Final = RowStatement(f"INSERT INTO requests (sequence, payload, checksum) {_REAL_ROWS}", 3)
_PUT_FUNCTIONS: Final = RowStatement(f"INSERT OR REPLACE INTO functions (key, data, checksum) {_REAL_ROWS}", 3)


def _new(column: str) -> str:
    """Name the column of VALUES that holds the new value."""
    return f"new.column{2 + STATE_COLUMNS.index(column)}"


# Guards: what an older boot says changes nothing; a final state is never taken back, and no other takes its place,
# though facts that are learned later (exit status, usage, that the result was taken) may be added to it.
_REPLACE_STATES: Final = RowStatement(
    f"""UPDATE states SET {", ".join(f"{column} = {_new(column)}" for column in STATE_COLUMNS if column != "is_taken")},
        is_taken = max(states.is_taken, {_new("is_taken")})
    FROM (VALUES {{rows}}) AS new
    WHERE states.sequence = new.column1
      AND {_new("boot")} >= states.boot
      AND (states.finished_at IS NULL OR ({_new("state")} = states.state AND {_new("outcome")} = states.outcome))""",
    1 + len(STATE_COLUMNS),
)

# The output of a task that was forgotten meanwhile would lie there for ever.
_STORED_ROWS: Final = f"{_REAL_ROWS} AND EXISTS (SELECT 1 FROM states WHERE states.sequence = column1)"
_PUT_RESULTS: Final = RowStatement(
    f"INSERT OR REPLACE INTO results (sequence, payload, traceback, checksum) {_STORED_ROWS}", 4
)
_PUT_OUTPUTS: Final = RowStatement(f"INSERT OR REPLACE INTO outputs (sequence, output, checksum) {_STORED_ROWS}", 3)

_NUMBERS: Final = "(SELECT value FROM json_each(?))"


def check_boot(connection: sqlite3.Connection, boot: int) -> None:
    """Refuse to write once another server has opened the file: its lock file must have been removed.

    Raises:
        StoreBroken: this boot is not the newest.
    """
    newest, pid = connection.execute("SELECT boot, pid FROM boots ORDER BY boot DESC LIMIT 1").fetchone()
    if newest != boot:
        raise StoreBroken(
            f"another server (pid {pid}) has opened the store meanwhile, so this one may no longer write to it. "
            "Was the lock file removed? Stop one of the two."
        )


def write_changes(connection: sqlite3.Connection, batch: Batch, new_functions: dict[str, bytes]) -> None:
    """Carry out a batch within the transaction that is open, in the order of its fields."""
    if new_functions:
        _PUT_FUNCTIONS.run(connection, [(key, data, crc32(data)) for key, data in new_functions.items()])
    states = batch.states
    if batch.added:
        states = _add(connection, batch)
    if states:
        _REPLACE_STATES.run(connection, [_state_values(state) for state in states])
    if batch.results:
        _PUT_RESULTS.run(connection, [(number, *_result_values(result)) for number, result in batch.results])
    if batch.outputs:
        _PUT_OUTPUTS.run(connection, [(number, output, crc32(output)) for number, output in batch.outputs])
    if batch.requests_done:
        _delete(connection, batch.requests_done, "requests")
    if batch.results_taken:
        _delete(connection, batch.results_taken, "results")
    if batch.forgotten:
        _remember_last_sequence(connection, batch.forgotten)
        _delete(connection, batch.forgotten, "tasks", "states", "requests", "results", "outputs")


def _add(connection: sqlite3.Connection, batch: Batch) -> list[TaskState]:
    """Insert the new tasks with their states, and return the states of the other tasks."""
    priorities = {row.sequence: row.priority for row, _ in batch.added}
    first = [
        (*_state_values(state), priorities[state.sequence]) for state in batch.states if state.sequence in priorities
    ]
    if len(first) != len(priorities):
        raise StoreBroken("a task was to be stored without its state, or twice. This is a bug of Palpable.")
    _ADD_TASKS.run(connection, [_task_values(row) for row, _ in batch.added])
    _ADD_STATES.run(connection, first)
    _ADD_REQUESTS.run(connection, [(row.sequence, payload, crc32(payload)) for row, payload in batch.added])
    return [state for state in batch.states if state.sequence not in priorities]


def _task_values(row: TaskRow) -> tuple[Any, ...]:
    return (
        row.sequence,
        row.task_id,
        row.name,
        row.form,
        row.function_key,
        row.policy,
        row.submitted_at,
        row.parent_id,
        row.depth,
        task_checksum(row),
    )


def _state_values(state: TaskState) -> tuple[Any, ...]:
    sequence, name, outcome, *facts, followup_ids = msgspec.structs.astuple(state)
    ids = msgspec.json.encode(followup_ids).decode() if followup_ids else ""
    return sequence, str(name), str(outcome), *facts, ids  # an enum's member takes sqlite3 far longer than a str


def _result_values(result: StoredResult) -> tuple[bytes | None, str, int]:
    return result.payload, result.traceback, result_checksum(result.payload, result.traceback)


def task_checksum(row: TaskRow) -> int:
    """Return the checksum of a task's strings."""
    return crc32("\0".join((row.task_id, row.name, row.form, row.function_key, row.policy, row.parent_id)).encode())


def result_checksum(payload: bytes | None, traceback: str) -> int:
    """Return the checksum of both parts of a result."""
    return crc32(traceback.encode(), crc32(payload or b""))


def _delete(connection: sqlite3.Connection, sequences: list[int], *tables: str) -> None:
    numbers = msgspec.json.encode(sequences).decode()
    for table in tables:
        connection.execute(f"DELETE FROM {table} WHERE sequence IN {_NUMBERS}", (numbers,))


def _remember_last_sequence(connection: sqlite3.Connection, forgotten: list[int]) -> None:
    """Note the highest number if its task goes: numbers are never given out again."""
    (last,) = connection.execute("SELECT max(sequence) FROM tasks").fetchone()
    if last is not None and last in forgotten:
        connection.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'last_sequence'", (last,))
