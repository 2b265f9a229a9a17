"""Stores as a server leaves them behind, written directly: a million tasks would take minutes to submit.

Runs in: the measuring process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palpable._store.store import TaskRow

ROWS_AT_ONCE = 50_000
LONG_AGO_SECONDS = 7 * 86_400.0


def fill_with_ready_tasks(path: str, function: Callable[..., Any], args: tuple[Any, ...], count: int) -> None:
    """Write `count` tasks that are ready to call `function(*args)`."""
    from palpable._store.sqlite_store import SqliteStore
    from palpable._store.store import Batch, TaskState
    from palpable._wire.payload import dumps_call, dumps_function

    key, data, name = dumps_function(function)
    payload = dumps_call(args, {})
    store = SqliteStore(path)
    try:
        for rows in _rows(count, name, key):
            states = [TaskState(row.sequence, "ready") for row in rows]
            store.write(Batch(functions={key: data}, added=[(row, payload) for row in rows], states=states))
    finally:
        store.close()


def fill_with_finished_tasks(path: str, count: int) -> None:
    """Write `count` tasks that succeeded a week ago, each with its result."""
    from palpable._store.sqlite_store import SqliteStore
    from palpable._store.store import Batch, StoredResult, TaskState
    from palpable._wire.payload import dumps_result

    finished_at = time.time() - LONG_AGO_SECONDS
    store = SqliteStore(path)
    try:
        for rows in _rows(count, "increment", ""):
            states = [
                TaskState(
                    row.sequence,
                    "succeeded",
                    "succeeded",
                    attempt=1,
                    boot=store.boot,
                    started_at=finished_at,
                    finished_at=finished_at,
                )
                for row in rows
            ]
            results = [(row.sequence, StoredResult(dumps_result(f"the result of {row.task_id}"))) for row in rows]
            done = [row.sequence for row in rows]
            store.write(Batch(added=[(row, b"") for row in rows], states=states, results=results, requests_done=done))
    finally:
        store.close()


def _rows(count: int, name: str, function_key: str) -> Iterator[list[TaskRow]]:
    from palpable._store.store import TaskRow

    now = time.time() - LONG_AGO_SECONDS - 1.0
    for start in range(0, count, ROWS_AT_ONCE):
        yield [
            TaskRow(sequence, secrets.token_hex(16), name, "call", function_key, "{}", 0, now)
            for sequence in range(start + 1, min(start + ROWS_AT_ONCE, count) + 1)
        ]
