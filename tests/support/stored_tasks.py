"""Rows for stores: a task with only what a test is about."""

from __future__ import annotations

from typing import Any

from palpable._store.store import Batch, Store, TaskRow, TaskState

SUBMITTED_AT = 1_700_000_000.0


def task_row(sequence: int, **changes: Any) -> TaskRow:
    """A row of a task named after its number."""
    values: dict[str, Any] = {
        "task_id": f"task-{sequence}",
        "name": "double",
        "form": "call",
        "function_key": "",
        "policy": "{}",
        "priority": 0,
        "submitted_at": SUBMITTED_AT + sequence,
    }
    return TaskRow(sequence=sequence, **(values | changes))


def ready(sequence: int, **changes: Any) -> TaskState:
    return TaskState(sequence=sequence, state="ready", **changes)


def running(sequence: int, **changes: Any) -> TaskState:
    return TaskState(sequence=sequence, state="running", **({"attempt": 1, "boot": 1, "started_at": 2e9} | changes))


def succeeded(sequence: int, **changes: Any) -> TaskState:
    values = {"attempt": 1, "boot": 1, "started_at": 2e9, "finished_at": 2e9 + 1, "outcome": "succeeded"}
    return TaskState(sequence=sequence, state="succeeded", **(values | changes))


def failed(sequence: int, **changes: Any) -> TaskState:
    values = {"attempt": 1, "boot": 1, "started_at": 2e9, "finished_at": 2e9 + 1, "outcome": "error"}
    return TaskState(sequence=sequence, state="failed", **(values | changes))


def add_tasks(store: Store, *sequences: int, **changes: Any) -> None:
    """Write ready tasks, each with a request that names its number."""
    store.write(
        Batch(
            added=[(task_row(number, **changes), b"request %d" % number) for number in sequences],
            states=[ready(number) for number in sequences],
        )
    )


def tidy_up(store: Store) -> int:
    """Tidy until there is nothing to do, and return how many steps that took."""
    steps = 1
    while store.tidy():
        steps += 1
    return steps


def all_tasks(store: Store) -> dict[int, tuple[TaskRow, TaskState]]:
    """All tasks by number."""
    chunks = [*store.unfinished(), *store.finished()]
    return {row.sequence: (row, state) for chunk in chunks for row, state in chunk}


def state_of(store: Store, sequence: int) -> TaskState:
    """The stored state of a task."""
    return all_tasks(store)[sequence][1]
