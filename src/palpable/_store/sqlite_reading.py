"""Reading tasks in bulk, as a server does when it starts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from palpable._core.task_state import State
from palpable._store.sqlite_writing import STATE_COLUMNS, TASK_COLUMNS, task_checksum
from palpable._store.store import StoreBroken, TaskRow, TaskState

STATES: Final = {state.value: state.value for state in State}
KEPT_STRINGS: Final = 10_000

UNFINISHED: Final = "WHERE finished_at IS NULL ORDER BY state = 'running' DESC, priority DESC, sequence"
FINISHED: Final = "WHERE finished_at IS NOT NULL ORDER BY finished_at, sequence"

_IN_ORDER: Final = "SELECT sequence FROM states {which}"
_ROWS: Final = f"""
    SELECT wanted.value, priority, {", ".join(TASK_COLUMNS)}, {", ".join(STATE_COLUMNS)}
    FROM json_each(?) AS wanted
    CROSS JOIN states ON states.sequence = wanted.value
    CROSS JOIN tasks ON tasks.sequence = wanted.value"""


def read_tasks(
    connection: sqlite3.Connection, which: str, chunk_size: int
) -> Iterator[list[tuple[TaskRow, TaskState]]]:
    """Yield the tasks of one moment in chunks, in order; `which` is UNFINISHED or FINISHED.

    Memory: one chunk, and what SQLite sorts in (numbers only; on disk if they are many).
    """
    connection.execute("BEGIN")  # all reads see the store as it is now
    kept: dict[str, str] = {}
    numbers = connection.execute(_IN_ORDER.format(which=which))
    while some := numbers.fetchmany(chunk_size):
        wanted = [number for (number,) in some]
        rows = {row[0]: row for row in connection.execute(_ROWS, (msgspec.json.encode(wanted).decode(),))}
        if len(rows) != len(wanted):
            raise StoreBroken("the store is damaged: a task has lost its row. Restore a backup.")
        yield [_task(rows[number], kept) for number in wanted]
        if len(kept) > KEPT_STRINGS:
            kept.clear()


def _task(values: tuple[Any, ...], kept: dict[str, str]) -> tuple[TaskRow, TaskState]:
    """Make the structs. Strings that repeat from task to task become one object: there may be a million tasks."""
    keep = kept.setdefault
    sequence, priority, task_id, name, form, function_key, policy, submitted_at, parent_id, depth, *rest = values
    checksum, state, outcome, attempt, boot, due_at, started_at, finished_at, errors, crashes, *ending = rest
    error_type, error_message, exit_status, cpu_seconds, peak_memory_bytes, is_taken, followup_ids = ending
    row = TaskRow(
        sequence,
        task_id,
        keep(name, name),
        keep(form, form),
        keep(function_key, function_key),
        keep(policy, policy),
        priority,
        submitted_at,
        keep(parent_id, parent_id),
        depth,
    )
    if task_checksum(row) != checksum:
        raise StoreBroken(f"the store is damaged: task number {sequence} is not what was written. Restore a backup.")
    try:
        state = STATES[state]
        followups = tuple(msgspec.json.decode(followup_ids)) if followup_ids else ()
    except (KeyError, msgspec.DecodeError):
        raise StoreBroken(f"the store is damaged: task {task_id!r} is {state!r}. Restore a backup.") from None
    return row, TaskState(
        sequence,
        state,
        keep(outcome, outcome),
        attempt,
        boot,
        due_at,
        started_at,
        finished_at,
        errors,
        crashes,
        error_type,
        error_message,
        exit_status,
        cpu_seconds,
        peak_memory_bytes,
        is_taken == 1,
        followups,
    )
