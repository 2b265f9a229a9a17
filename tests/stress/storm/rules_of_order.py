"""The rule of order: of two tasks that could both run, the one of higher priority began first, and of equals the older.

Looked at are tasks in a process of their own, from clients, without delay, that began once: what is handed back after
a kill goes to the front of the queue again, and what shares a process with others begins when that one gets to it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from stress.storm.finding import Finding
from stress.storm.history import ANY_KILL, History
from stress.storm.stored import StoredTask

SLACK_SECONDS = 0.01
"""Moments of different starts of the server are compared through the wall clock."""


def check_order(history: History) -> Iterator[Finding]:
    """Yield the tasks that were overtaken.

    Walks through the starts in order of time, and keeps a heap of the tasks that were there and had not begun.
    """
    delayed = {
        task_id
        for task_id, labels in history.labels_of().items()
        if any("delay_seconds" in history.asked.get(label, {}).get("options", {}) for label in labels)
    }
    tasks = [task for task in history.file.tasks if _is_fit(task) and task.task_id not in delayed]
    arrivals = sorted(tasks, key=lambda task: task.submitted_at)
    begun: set[int] = set()
    waiting: list[tuple[int, int, StoredTask]] = []
    position = 0
    for task in sorted(tasks, key=lambda task: (task.started_at, task.sequence)):
        assert task.started_at is not None
        while position < len(arrivals) and arrivals[position].submitted_at < task.started_at - SLACK_SECONDS:
            arrived = arrivals[position]
            heapq.heappush(waiting, (-arrived.priority, arrived.sequence, arrived))
            position += 1
        begun.add(task.sequence)
        while waiting and waiting[0][1] in begun:
            heapq.heappop(waiting)
        if waiting and waiting[0][:2] < (-task.priority, task.sequence):
            overtaken = waiting[0][2]
            assert overtaken.started_at is not None
            late = overtaken.started_at - task.started_at
            since = history.monotonic(overtaken.submitted_at) or 0.0
            until = history.monotonic(overtaken.started_at) or 0.0
            # Its process was killed before it began it.
            if late > SLACK_SECONDS and not any(history.struck(ANY_KILL, since, until)):
                yield Finding(
                    "a task was overtaken",
                    f"{overtaken.task_id} (number {overtaken.sequence}, priority {overtaken.priority}) "
                    f"by {task.task_id} (number {task.sequence}, priority {task.priority}), by {late:.3f} s",
                )


def _is_fit(task: StoredTask) -> bool:
    return (
        task.isolation == "task"
        and not task.parent_id
        and task.depth == 0
        and task.attempt == 1
        and task.errors + task.crashes <= 1
        and task.started_at is not None
    )
