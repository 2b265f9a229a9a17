"""Taking up what a store holds, at the start of a server.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from palpable._core import events
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._store.store import Store

if TYPE_CHECKING:
    from palpable.servants.manager import Manager


async def recover(
    manager: Manager, store: Store, on_progress: Callable[[int], None], is_over: Callable[[], bool]
) -> dict[str, int]:
    """Give the engine what the store holds, piece by piece; return how many tasks there were, by what became of them.

    The tasks that were running come first. Tasks start as soon as the first piece is read.

    Args:
        on_progress: called with how many tasks were read, after each piece.
        is_over: looked at after each piece: whether to leave the rest to the next server. It stays as it is stored.
    """
    gc.disable()
    try:
        counts = await _read_all(manager, store, on_progress, is_over)
    finally:
        # What was read stays for long, and there are no cycles in it: the collector need not look at it, now or ever.
        gc.freeze()
        gc.enable()
    return {what: count for what, count in counts.items() if count}


async def _read_all(
    manager: Manager, store: Store, on_progress: Callable[[int], None], is_over: Callable[[], bool]
) -> dict[str, int]:
    rows, now = manager.rows, time.monotonic()
    counts = {"ready": 0, "interrupted": 0, "scheduled": 0, "retrying": 0, "cancelled": 0, "lost": 0, "finished": 0}
    for chunk in store.unfinished():
        tasks = [rows.record_of(row, state, now) for row, state in chunk]
        interrupted = {task.task_id for task in tasks if task.state is State.RUNNING}
        _hold_functions(manager, tasks)
        manager.handle(events.TasksRecovered(tasks))
        for task in tasks:
            if task.is_final:
                counts["lost" if task.outcome is Outcome.LOST else "cancelled"] += 1
            elif task.task_id in interrupted:
                counts["interrupted"] += 1
            else:
                counts[task.state if task.state in counts else "ready"] += 1
        on_progress(sum(counts.values()))
        await asyncio.sleep(0)
        if is_over():
            return counts
    known = manager.engine.tasks
    for chunk in store.finished():
        # Those that have ended since we began to read are known by now.
        tasks = [rows.record_of(row, state, now) for row, state in chunk if row.task_id not in known]
        _hold_functions(manager, (task for task in tasks if task.outcome is not Outcome.SUCCEEDED))
        manager.handle(events.ResultsRecovered(tasks))
        counts["finished"] += len(tasks)
        on_progress(sum(counts.values()))
        await asyncio.sleep(0)
        if is_over():
            break
    return counts


def _hold_functions(manager: Manager, tasks: Iterable[TaskRecord]) -> None:
    """Functions are held while a task refers to them: one that has not succeeded, and may be run (again)."""
    for task in tasks:
        if task.function_key:
            manager.functions.refer(task.function_key)
