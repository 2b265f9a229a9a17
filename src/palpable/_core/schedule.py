"""The tasks whose time has not come: scheduled ones, and those that wait between two attempts."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import State

LEAST_CLEARED = 1000
"""Entries without a task that waits are cleared away when there are this many, and as many as of the others."""
_WAITING = frozenset({State.SCHEDULED, State.RETRYING})


class Schedule:
    """A heap by due time. An entry whose task has another due time by now, or another state, is passed over."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, TaskRecord]] = []
        self._clear_at = LEAST_CLEARED

    def add(self, task: TaskRecord) -> None:
        """Enter a task by its `due_at`, which is set."""
        assert task.due_at is not None
        if len(self._entries) >= self._clear_at:
            # Who submits for tomorrow and cancels today would otherwise have us keep all of it until tomorrow.
            self._entries = [entry for entry in self._entries if _is_valid(entry)]
            heapq.heapify(self._entries)
            self._clear_at = 2 * len(self._entries) + LEAST_CLEARED
        heapq.heappush(self._entries, (task.due_at, task.sequence, task))

    def __iter__(self) -> Iterator[TaskRecord]:
        """The tasks that wait for their time, in no order."""
        return (entry[2] for entry in self._entries if _is_valid(entry))

    @property
    def next_due_at(self) -> float:
        """When the next one is due; infinity if there is none."""
        while self._entries and not _is_valid(self._entries[0]):
            heapq.heappop(self._entries)
        return self._entries[0][0] if self._entries else math.inf

    def take_due(self, now: float) -> Iterator[TaskRecord]:
        """Take out those that are due, in the order of their times."""
        while self.next_due_at <= now:
            yield heapq.heappop(self._entries)[2]


def _is_valid(entry: tuple[float, int, TaskRecord]) -> bool:
    due_at, _, task = entry
    return task.due_at == due_at and task.state in _WAITING
