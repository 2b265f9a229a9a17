"""Taking up what a store holds, at the start of a server.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec.json import Decoder

from palpable._core import events
from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._store.store import Store, TaskRow, TaskState
from palpable._wire.messages import TaskRequest

if TYPE_CHECKING:
    from palpable.servants.manager import Manager


class _Records:
    """Makes records from rows. What repeats is made once: a queue of a million tasks must fit into memory."""

    def __init__(self, utc_offset: float) -> None:
        self._utc_offset = utc_offset
        self._policies: dict[str, TaskPolicy] = {}
        self._decode = Decoder(TaskPolicy).decode
        self._now = time.monotonic()

    def make(self, row: TaskRow, state: TaskState) -> TaskRecord:
        policy = self._policies.get(row.policy)
        if policy is None:
            policy = self._policies[row.policy] = self._decode(row.policy)
        is_done = state.outcome == Outcome.SUCCEEDED
        return TaskRecord(
            task_id=row.task_id,
            request=None if is_done else TaskRequest(row.task_id, row.form, row.function_key, b"", row.name),  # type: ignore[arg-type]
            name=row.name,
            function_key=row.function_key,
            policy=policy,
            isolation=policy.isolation,
            sequence=row.sequence,
            submitted_at=self._past(row.submitted_at) or 0.0,
            parent_id=row.parent_id,
            depth=row.depth,
            state=State(state.state),
            outcome=Outcome(state.outcome),
            attempt=state.attempt,
            errors=state.errors,
            crashes=state.crashes,
            due_at=self._future(state.due_at, policy),
            started_at=self._past(state.started_at),
            finished_at=self._past(state.finished_at),
            error_type=state.error_type,
            error_message=state.error_message,
            exit_status=state.exit_status,
            cpu_seconds=state.cpu_seconds,
            peak_memory_bytes=state.peak_memory_bytes,
            is_taken=state.is_taken,
            followup_ids=list(state.followup_ids) or None,
            is_on_disk=True,
        )

    def _past(self, at: float | None) -> float | None:
        """Return a stored moment in monotonic seconds.

        What has happened is not in the future, whatever a clock says that was set back since then.
        """
        return None if at is None else min(at - self._utc_offset, self._now)

    def _future(self, at: float | None, policy: TaskPolicy) -> float | None:
        return None if at is None else at - self._utc_offset


async def recover(manager: Manager, store: Store) -> dict[str, int]:
    """Give the engine what the store holds, piece by piece; return how many tasks there were, by what became of them.

    The tasks that were running come first, so that one of the next pieces can start while others are read.
    """
    records = _Records(manager.utc_offset)
    counts = {"ready": 0, "interrupted": 0, "scheduled": 0, "retrying": 0, "cancelled": 0, "lost": 0, "finished": 0}
    for chunk in store.unfinished():
        tasks = [records.make(row, state) for row, state in chunk]
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
        await asyncio.sleep(0)
    for chunk in store.finished():
        tasks = [records.make(row, state) for row, state in chunk]
        _hold_functions(manager, (task for task in tasks if task.outcome is not Outcome.SUCCEEDED))
        manager.handle(events.ResultsRecovered(tasks))
        counts["finished"] += len(tasks)
        await asyncio.sleep(0)
    return {what: count for what, count in counts.items() if count}


def _hold_functions(manager: Manager, tasks: Iterable[TaskRecord]) -> None:
    """Functions are held while a task refers to them: one that has not succeeded, and may be run (again)."""
    for task in tasks:
        if task.function_key:
            manager.functions.refer(task.function_key)
