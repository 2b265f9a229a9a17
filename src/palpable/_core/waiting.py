"""Tasks that wait for tasks: how a slot is freed, and why it can't deadlock.

A task that waits gives up its slot, so that what it waits for can run, also with one worker. What a running task waits
for goes before everything else in the ready queue, the deepest first. Hence every live process is running, or an
ancestor of one that is: at most (depth of the tree + 1) processes for each slot.

Ray frees the resources of a blocked task in the same way; what differs is the order, which bounds the processes.
"""

from __future__ import annotations

from palpable._core.dispatch import Dispatcher
from palpable._core.effects import RefuseWait, ReleaseWait
from palpable._core.events import WaitBegan
from palpable._core.task_record import TaskRecord, Wait
from palpable._core.task_state import State


class Waiting:
    """The waits that are open, held in the records of the tasks concerned."""

    def __init__(self, tasks: dict[str, TaskRecord], dispatcher: Dispatcher) -> None:
        self._tasks = tasks
        self._dispatcher = dispatcher

    def begin(self, event: WaitBegan) -> None:
        """A thread of a running task begins to wait."""
        effects = self._dispatcher.effects
        waiter = self._tasks.get(event.task_id)
        if waiter is None or waiter.state is not State.RUNNING:
            effects.append(RefuseWait(event.connection_id, event.wait_id, f"task {event.task_id} is not running"))
            return
        waited = [self._tasks[task_id] for task_id in event.task_ids if task_id in self._tasks]
        unfinished = {task.task_id: task for task in waited if not task.is_final}
        if not unfinished or (event.needs == "any" and len(unfinished) < len(set(event.task_ids))):
            effects.append(ReleaseWait(event.connection_id, event.wait_id))
            return
        if self._leads_to(unfinished, waiter):
            effects.append(
                RefuseWait(
                    event.connection_id,
                    event.wait_id,
                    f"task {waiter.task_id} would wait for itself: what it waits for is waiting for it",
                )
            )
            return
        wait = Wait(waiter, event.connection_id, event.wait_id, set(unfinished), event.needs == "all")
        waiter.waits = [*(waiter.waits or ()), wait]
        for task in unfinished.values():
            task.waited_by = [*(task.waited_by or ()), wait]
            self._judge_urgency(task)
        runner = self._dispatcher.runners.get(waiter.runner_id or 0)
        if runner is not None:
            self._dispatcher.pause(runner)

    def end(self, task_id: str, connection_id: int, wait_id: int | None = None) -> None:
        """The thread, or its connection, gave up: that wait, or all of that connection. The task goes on."""
        waiter = self._tasks.get(task_id)
        if waiter is None or not waiter.waits:
            return
        given_up = [w for w in waiter.waits if w.connection_id == connection_id and wait_id in (None, w.wait_id)]
        for wait in given_up:
            waiter.waits.remove(wait)
            self._unlink(wait)
        if given_up:
            # It runs already, with or without a slot; it gets the next free one.
            self._dispatcher.want_slot(waiter)

    def end_all(self, waiter: TaskRecord) -> None:
        """The waiting task has ended."""
        for wait in waiter.waits or ():
            self._unlink(wait)
        waiter.waits = None
        if waiter in self._dispatcher.resuming:
            self._dispatcher.resuming.remove(waiter)

    def task_ended(self, task: TaskRecord) -> None:
        """A task has ended that others wait for."""
        waits, task.waited_by = task.waited_by or [], None
        for wait in waits:
            wait.remaining.discard(task.task_id)
            if not wait.is_satisfied and (not wait.remaining or not wait.needs_all):
                wait.is_satisfied = True
                self._dispatcher.want_slot(wait.task)

    def _unlink(self, wait: Wait) -> None:
        for task_id in wait.remaining:
            task = self._tasks.get(task_id)
            if task is not None and task.waited_by:
                task.waited_by = [other for other in task.waited_by if other is not wait] or None
                self._judge_urgency(task)

    def _judge_urgency(self, task: TaskRecord) -> None:
        """Who waits for it has changed; what nobody waits for any more is a task like others again."""
        urgency = max((wait.task.depth + 1 for wait in task.waited_by or ()), default=0)
        if urgency != task.urgency:
            task.urgency = urgency
            if task.level is not None:
                # Where it goes back to a level, its old entry there counts again, if it is not reached yet: its place.
                self._dispatcher.ready.add(task)

    def _leads_to(self, unfinished: dict[str, TaskRecord], target: TaskRecord) -> bool:
        """Whether one of these tasks is `target`, or waits for it, directly or not."""
        seen: set[str] = set()
        stack = list(unfinished.values())
        while stack:
            task = stack.pop()
            if task is target:
                return True
            if task.task_id in seen:
                continue
            seen.add(task.task_id)
            for wait in task.waits or ():
                stack.extend(self._tasks[i] for i in wait.remaining if i in self._tasks and i not in seen)
        return False
