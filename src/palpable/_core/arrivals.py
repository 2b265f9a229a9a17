"""All tasks in the order in which they came, for lists, and to page through them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from palpable._core.task_record import TaskRecord

LEAST_CLEARED = 1000
"""Places of tasks that are gone are cleared away when there are this many, and as many as of the others."""


class Arrivals:
    """The tasks by their sequence number. To find a place takes logarithmic time, to add and to remove hardly more.

    Args:
        tasks: all there are, by id; whoever changes it says so here.
    """

    def __init__(self, tasks: Mapping[str, TaskRecord]) -> None:
        self._by_id = tasks
        self._sequences: list[int] = []
        self._tasks: list[TaskRecord | None] = []
        """None: gone."""
        self._gone = 0
        self._oldest = 0
        """The place of the oldest task that is not gone, or before that. Mostly that is the next one to go."""
        self._is_stale = False
        """Whether tasks came in another order, as those of a store do, and the order is to be made anew."""

    def add(self, task: TaskRecord) -> None:
        """A task came."""
        if self._is_stale:
            return
        if self._sequences and task.sequence <= self._sequences[-1]:
            self._is_stale = True
            return
        self._sequences.append(task.sequence)
        self._tasks.append(task)

    def add_all(self, tasks: Sequence[TaskRecord]) -> None:
        """As `add` for each of these, which are in the order of their sequence numbers."""
        if self._is_stale or not tasks:
            return
        if self._sequences and tasks[0].sequence <= self._sequences[-1]:
            self._is_stale = True
            return
        self._sequences.extend([task.sequence for task in tasks])
        self._tasks.extend(tasks)

    def remove(self, gone: Iterable[TaskRecord]) -> None:
        """These tasks are gone; does nothing about one that is not there."""
        if self._is_stale:
            return
        tasks, oldest = self._tasks, self._oldest
        for task in gone:
            while oldest < len(tasks) and tasks[oldest] is None:
                oldest += 1
            place = oldest
            if place == len(tasks) or tasks[place] is not task:
                place = bisect_left(self._sequences, task.sequence)
            if place < len(tasks) and tasks[place] is task:
                tasks[place] = None
                self._gone += 1
        self._oldest = oldest
        if self._gone > LEAST_CLEARED and 2 * self._gone > len(tasks):
            self._is_stale = True

    def newest_first(self, before: int | None = None) -> Iterator[TaskRecord]:
        """Yield the tasks from the newest to the oldest. None may come or go meanwhile.

        Args:
            before: only those whose sequence number is less.
        """
        if self._is_stale:
            self._put_in_order()
        end = len(self._sequences) if before is None else bisect_left(self._sequences, before)
        for place in range(end - 1, -1, -1):
            task = self._tasks[place]
            if task is not None:
                yield task

    def _put_in_order(self) -> None:
        self._tasks = [*sorted(self._by_id.values(), key=lambda task: task.sequence)]
        self._sequences = [task.sequence for task in self._tasks if task is not None]
        self._gone, self._oldest, self._is_stale = 0, 0, False
