"""A task process, as the engine sees it."""

from __future__ import annotations

from collections import deque

import msgspec

from palpable._core.task_record import TaskRecord


class Runner(msgspec.Struct, eq=False):
    """One process and the tasks handed to it; the first in the inbox is the one that runs.

    With isolation "task" it is handed one task, ever. With "worker" it is handed the next few ahead of time, when tasks
    are short; those that it has not begun can be taken back.
    """

    runner_id: int
    isolation: str
    slot: int | None = None
    """The slot it occupies. None: idle, waiting for sub-tasks, or ending."""
    inbox: deque[TaskRecord] = msgspec.field(default_factory=deque)
    head_since: float = 0.0
    """When the first task of the inbox began."""
    is_waiting: bool = False
    """Its task waits for sub-tasks, and gave up its slot."""
    is_ending: bool = False
    """No further task is handed to it: it is being killed, or exits after its only task."""
    is_emptying: bool = False
    """A `TakeBack` is ordered and not answered. Nothing is handed to it meanwhile: the answer counts from the end."""
    ended: list[TaskRecord] = msgspec.field(default_factory=list)
    """Tasks whose attempt is over, final or retrying; this process's exit will tell their exit status and usage."""
    tasks_run: int = 0
    taken_back: int = 0
    """Unclaimed tasks taken back that the process has not been told of yet."""
