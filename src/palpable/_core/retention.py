"""Which finished tasks are still kept."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import FINAL

RECOVERED_SECONDS = 60.0
"""A result of an earlier start of the server is kept so long at least, or as long as any, whatever its age: its client
is about to connect again, and tries that for a minute by itself."""


class Retention:
    """Keeps finished tasks, the oldest first, up to a number and an age.

    Args:
        capacity: how many at most.
        seconds: how long at most.
    """

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.counts: dict[str, int] = dict.fromkeys(FINAL, 0)
        """How many are kept, by state."""
        self.taken_count = 0
        """Of how many the result was handed over."""
        self._finished: deque[TaskRecord] = deque()
        self._none_before = 0.0
        """Until then none is dropped for its age."""

    def __len__(self) -> int:
        return len(self._finished)

    @property
    def result_count(self) -> int:
        """How many results are kept."""
        return len(self._finished) - self.taken_count

    def add(self, tasks: Iterable[TaskRecord]) -> None:
        counts = self.counts
        for task in tasks:
            counts[task.state] += 1
            if task.is_taken:
                self.taken_count += 1
            self._finished.append(task)

    def spare(self, now: float) -> None:
        """Results of an earlier start are about to be added.

        How old they are, wall clocks say, perhaps of two machines. A clock that was set forward, or a server that was
        away for long, must not take from clients what they could not fetch.
        """
        self._none_before = max(self._none_before, now + min(self.seconds, RECOVERED_SECONDS))

    def drop(self, now: float) -> list[TaskRecord]:
        """Return the tasks that are over a limit, and forget them."""
        finished, counts = self._finished, self.counts
        dropped: list[TaskRecord] = []
        oldest = now - self.seconds if now >= self._none_before else -math.inf
        while finished and (len(finished) > self.capacity or (finished[0].finished_at or 0.0) <= oldest):
            task = finished.popleft()
            counts[task.state] -= 1
            if task.is_taken:
                self.taken_count -= 1
            dropped.append(task)
        return dropped

    @property
    def next_drop_at(self) -> float:
        """When the oldest reaches its age; infinity if nothing is kept."""
        if not self._finished:
            return math.inf
        return max(self._none_before, (self._finished[0].finished_at or 0.0) + self.seconds)

    def purge(self, states: frozenset[str], ended_before: float) -> list[TaskRecord]:
        """Take out, and return, those in one of these states that ended before that moment."""
        purged: list[TaskRecord] = []
        kept: deque[TaskRecord] = deque()
        for task in self._finished:
            is_meant = task.state in states and (task.finished_at or 0.0) < ended_before
            (purged if is_meant else kept).append(task)
        self._finished = kept
        for task in purged:
            self.counts[task.state] -= 1
        self.taken_count -= sum(task.is_taken for task in purged)
        return purged
