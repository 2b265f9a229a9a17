"""The tasks that may start, by urgency, then priority, then age."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import READY

LEAST_CLEARED = 1000
"""Entries of tasks that have left are cleared away when there are this many, and as many as of the others."""


class ReadyQueue:
    """A queue with few levels and many tasks: every call is constant time in the number of tasks.

    A level is (-urgency, -priority); within a level tasks leave in the order they came. Entries are dropped lazily: one
    whose task has left the level, or is no longer ready, is passed over.
    """

    def __init__(self) -> None:
        self._levels: dict[tuple[int, int], deque[TaskRecord]] = {}
        self._order: list[tuple[int, int]] = []
        self._shared: dict[tuple[int, int], tuple[int, int]] = {}
        """One tuple for each level there is: a million tasks are not to hold one each."""
        self._size = 0
        self._entries = 0

    def __len__(self) -> int:
        return self._size

    def add(self, task: TaskRecord) -> None:
        """Put a ready task at the end of its level; one that stands in another level moves."""
        self._enter(task).append(task)

    def add_all(self, tasks: Sequence[TaskRecord]) -> None:
        """As `add` for each of these, which are new and of one level."""
        if not tasks:
            return
        entries = self._enter(tasks[0])
        level = tasks[0].level
        for task in tasks:
            task.level = level
        entries.extend(tasks)
        self._size += len(tasks) - 1
        self._entries += len(tasks) - 1

    def put_back(self, task: TaskRecord) -> None:
        """Put a task that had left the queue, but was not started, at the front of its level."""
        self._enter(task).appendleft(task)

    def _enter(self, task: TaskRecord) -> deque[TaskRecord]:
        if self._entries > 2 * self._size + LEAST_CLEARED:
            self._clear()
        self._entries += 1
        if task.level is None:
            self._size += 1
        level = (-task.urgency, -task.policy.priority)
        task.level = level = self._shared.setdefault(level, level)
        tasks = self._levels.get(level)
        if tasks is None:
            tasks = self._levels[level] = deque()
            heapq.heappush(self._order, level)
        return tasks

    def _clear(self) -> None:
        """Drop the entries that would be passed over: behind a long queue they would be kept until that is empty."""
        for level, tasks in list(self._levels.items()):
            if kept := dict.fromkeys(task for task in tasks if _stands_in(task, level)):
                self._levels[level] = deque(kept)
            else:
                del self._levels[level]
                del self._shared[level]
        self._order = list(self._levels)
        heapq.heapify(self._order)
        self._entries = sum(map(len, self._levels.values()))

    def remove(self, task: TaskRecord) -> None:
        """Take a task out, wherever it stands. Does nothing if it is not in the queue."""
        if task.level is not None:
            task.level = None
            self._size -= 1

    def first(self) -> TaskRecord | None:
        """Return the task that leaves next, without taking it."""
        while self._order:
            level = self._order[0]
            tasks = self._levels[level]
            while tasks:
                task = tasks[0]
                # As `_stands_in`, written out: this is asked for every task.
                if task.level == level and task.state is READY and task.runner_id is None:
                    return task
                tasks.popleft()
                self._entries -= 1
            self._drop_first_level()
        return None

    def _drop_first_level(self) -> None:
        level = heapq.heappop(self._order)
        del self._levels[level], self._shared[level]

    def take_alike(self, count: int) -> list[TaskRecord]:
        """Take the task that `first` has just returned, and up to `count` in all of its level and policy."""
        # `first` left it at the head of the first level.
        level = self._order[0]
        tasks = self._levels[level]
        policy = tasks[0].policy
        taken: list[TaskRecord] = []
        entries = len(tasks)
        while tasks and len(taken) < count:
            task = tasks[0]
            if _stands_in(task, level):
                if task.policy is not policy:
                    break
                task.level = None
                taken.append(task)
            tasks.popleft()
        self._entries -= entries - len(tasks)
        self._size -= len(taken)
        if not tasks:  # not left for `first`, which does not come here while tasks of higher priority do
            self._drop_first_level()
        return taken

    def next_few(self, count: int) -> Iterator[TaskRecord]:
        """Yield the tasks that leave next, up to about that many, without taking them; all are of one level."""
        if self.first() is not None:
            level = self._order[0]
            for task in islice(self._levels[level], count):
                if _stands_in(task, level):
                    yield task


def _stands_in(task: TaskRecord, level: tuple[int, int]) -> bool:
    return task.level == level and task.state is READY and task.runner_id is None
