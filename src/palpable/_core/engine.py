"""The engine: every decision about every task.

Events in, effects out: `handle` takes what happened and the time, and returns what is to be done, in order: all effects
of one event before those of the next, also when carrying one out brings a new event. It opens nothing, sleeps never,
reads no clock and draws no random number. After each event, `validate` (see `invariants`) must find nothing to say.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from palpable._core import events
from palpable._core.dispatch import Dispatcher
from palpable._core.effects import Effect, TaskFinished, TaskForgotten, TaskSettled
from palpable._core.retention import Retention
from palpable._core.runner import Runner
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Move, Outcome, State, move
from palpable._core.waiting import Waiting

LOST_PROCESSES_MAX = 10
"""A task is rejected when this many processes have ended before they began it: it can't be started here."""
_MOVE_OF = {Outcome.SUCCEEDED: Move.SUCCEED, Outcome.CANCELLED: Move.CANCEL}


class Engine:
    """The tasks of one server, and what becomes of them.

    Args:
        slot_count: how many tasks run at once, not counting those that wait for sub-tasks.
        retention_capacity: finished tasks kept at most.
        retention_seconds: how long a finished task is kept.
        max_tasks_per_process: worker mode: a process is replaced after this many tasks.
    """

    def __init__(
        self,
        slot_count: int,
        *,
        retention_capacity: int = 100_000,
        retention_seconds: float = 60.0,
        max_tasks_per_process: int | None = None,
    ) -> None:
        self.tasks: dict[str, TaskRecord] = {}
        self.dispatcher = Dispatcher(slot_count, max_tasks_per_process)
        self.waiting = Waiting(self.tasks, self.dispatcher)
        self.retention = Retention(retention_capacity, retention_seconds)
        self.is_stopping = False
        self._next_sequence = 0
        self._ending_with: dict[int, set[str]] = {}
        """By connection: the tasks to cancel when it closes."""
        self._to_end: deque[tuple[str, Outcome]] = deque()
        """Consequences of an event, worked off one by one: a tree of any depth, without recursion."""
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.TasksSubmitted: self._on_submitted,
            events.TasksEnded: self._on_ended,
            events.RunnerExited: self._on_runner_exited,
            events.TasksTakenBack: self._on_taken_back,
            events.WaitBegan: self._on_wait_began,
            events.WaitEnded: self._on_wait_ended,
            events.ConnectionClosed: self._on_connection_closed,
            events.EndRequested: self._on_end_requested,
            events.StopRequested: self._on_stop_requested,
            events.ResultsTaken: self._on_results_taken,
            events.TimePassed: self._on_time_passed,
        }

    def handle(self, event: events.Event, now: float) -> list[Effect]:
        """Decide what follows from `event`.

        Args:
            event: what happened.
            now: monotonic seconds; never less than at the event before.
        """
        self._handlers[type(event)](event, now)
        while self._to_end:
            task_id, outcome = self._to_end.popleft()
            task = self.tasks.get(task_id)
            if task is not None:
                self._end_by_force(task, outcome, now)
        if not self.is_stopping:
            self.dispatcher.dispatch(now)
        effects, self.dispatcher.effects = self.dispatcher.effects, []
        return effects

    @property
    def next_wakeup(self) -> float:
        """When `TimePassed` is due, at the latest; infinity if nothing waits for time."""
        drop_at = self.retention.next_drop_at
        return min(self.dispatcher.next_timeout_at, self.dispatcher.steal_at, math.inf if drop_at is None else drop_at)

    # --- events ---

    def _on_submitted(self, event: events.TasksSubmitted, now: float) -> None:
        parent = self.tasks.get(event.parent_id) if event.parent_id else None
        depth = parent.depth + 1 if parent is not None else 0
        parent_id = parent.task_id if parent is not None else ""
        tasks, ready = self.tasks, self.dispatcher.ready
        for new in event.tasks:
            if new.task_id in tasks:  # sent again: it was accepted before
                continue
            task = TaskRecord(
                task_id=new.task_id,
                request=new.request,
                name=new.name,
                function_key=new.function_key,
                isolation=event.isolation,
                sequence=self._next_sequence,
                submitted_at=now,
                connection_id=event.connection_id,
                timeout_seconds=event.timeout_seconds,
                priority=event.priority,
                ends_with_client=event.ends_with_client,
                parent_id=parent_id,
                depth=depth,
            )
            self._next_sequence += 1
            tasks[new.task_id] = task
            if event.ends_with_client:
                self._ending_with.setdefault(event.connection_id, set()).add(new.task_id)
            if event.is_followup and parent is not None:
                parent.followup_ids = [*(parent.followup_ids or ()), new.task_id]
            if self.is_stopping:
                self._to_end.append((new.task_id, Outcome.QUIT))
            ready.add(task)

    def _on_ended(self, event: events.TasksEnded, now: float) -> None:
        runner = self.dispatcher.runners.get(event.runner_id)
        if runner is None:
            return
        inbox = runner.inbox
        for ending in event.endings:
            # Against an answer that comes after the verdict: a task that was ended by force has left the inbox.
            if not inbox or inbox[0].task_id != ending.task_id:
                continue
            task = inbox.popleft()
            runner.tasks_run += 1
            task.ending = ending.ending
            task.error_type, task.error_message = ending.error_type, ending.error_message
            if runner.isolation == "worker":
                task.cpu_seconds = ending.cpu_seconds
                task.peak_memory_bytes = ending.peak_memory_bytes
                task.is_settled = True
                self.dispatcher.estimates.learn(task.kind, ending.elapsed_seconds)
            else:
                runner.ended.append(task)
            self._finish(task, Outcome.SUCCEEDED if ending.is_successful else Outcome.ERROR, now)
            if inbox:
                self.dispatcher.begin_head(runner, now)
            else:
                self.dispatcher.runner_is_free(runner)

    def _on_runner_exited(self, event: events.RunnerExited, now: float) -> None:
        runner = self.dispatcher.runners.get(event.runner_id)
        if runner is None:
            return
        if runner.inbox and event.unclaimed >= len(runner.inbox):
            runner.inbox[0].lost_processes += 1  # it was next, and the process ended before it began
        for task in self.dispatcher.put_back_last(runner, event.unclaimed):
            if task.verdict:
                self._finish(task, task.verdict, now)
            elif task.lost_processes >= LOST_PROCESSES_MAX:
                task.exit_status = event.exit_status
                self._finish(task, Outcome.REJECTED, now)
        for task in runner.inbox:  # what had begun: one task, or none
            task.exit_status = event.exit_status
            runner.ended.append(task)
            self._finish(task, task.verdict or Outcome.CRASHED, now)
        runner.inbox.clear()
        for task in runner.ended:
            task.exit_status = event.exit_status
            if runner.isolation == "task":
                task.cpu_seconds = event.cpu_seconds
            task.peak_memory_bytes = event.peak_memory_bytes
            task.is_settled = True
            self.dispatcher.effects.append(TaskSettled(task))
        self.dispatcher.forget_runner(runner)

    def _on_taken_back(self, event: events.TasksTakenBack, now: float) -> None:
        runner = self.dispatcher.runners.get(event.runner_id)
        if runner is None:
            return
        runner.is_emptying = False
        runner.taken_back += event.count
        for task in self.dispatcher.put_back_last(runner, event.count):
            if task.verdict:
                self._finish(task, task.verdict, now)
        if not runner.inbox:
            if not runner.is_ending and runner not in self.dispatcher.warm:
                self.dispatcher.runner_is_free(runner)
            return
        head = runner.inbox[0]
        if head.verdict:
            self._kill_head(runner, head.verdict, now)

    def _on_wait_began(self, event: events.WaitBegan, now: float) -> None:
        self.waiting.begin(event)

    def _on_wait_ended(self, event: events.WaitEnded, now: float) -> None:
        self.waiting.end(event.task_id, event.connection_id, event.wait_id)

    def _on_connection_closed(self, event: events.ConnectionClosed, now: float) -> None:
        if event.inside_task:
            self.waiting.end(event.inside_task, event.connection_id)
        for task_id in self._ending_with.pop(event.connection_id, ()):
            self._to_end.append((task_id, Outcome.CANCELLED))

    def _on_end_requested(self, event: events.EndRequested, now: float) -> None:
        self._to_end.extend((task_id, event.outcome) for task_id in event.task_ids)

    def _on_stop_requested(self, event: events.StopRequested, now: float) -> None:
        self.is_stopping = True
        for task in [task for task in self.tasks.values() if not task.is_final]:
            runner = self._runner_of(task)
            if task.state is State.RUNNING and runner is not None:
                runner.inbox.remove(task)
                runner.ended.append(task)
            else:
                task.runner_id = None
            self._finish(task, Outcome.QUIT, now)
        for runner in self.dispatcher.runners.values():
            runner.inbox.clear()
            if not runner.is_ending:
                self.dispatcher.kill(runner)

    def _on_results_taken(self, event: events.ResultsTaken, now: float) -> None:
        for task_id in event.task_ids:
            task = self.tasks.get(task_id)
            if task is not None and task.is_final:
                task.is_taken = True
                task.ending = None

    def _on_time_passed(self, event: events.TimePassed, now: float) -> None:
        if now >= self.dispatcher.steal_at:
            self.dispatcher.steal(now)
        if now >= self.dispatcher.next_timeout_at:
            self._end_overdue(now)
        for task in self.retention.drop(now):
            self._forget(task)

    # --- decisions ---

    def _end_overdue(self, now: float) -> None:
        earliest = math.inf
        for runner in self.dispatcher.runners.values():
            if not runner.inbox or runner.is_ending or runner.inbox[0].timeout_seconds is None:
                continue
            overdue_at = runner.head_since + runner.inbox[0].timeout_seconds
            if overdue_at <= now:
                self._to_end.append((runner.inbox[0].task_id, Outcome.TIMEOUT))
            else:
                earliest = min(earliest, overdue_at)
        self.dispatcher.next_timeout_at = earliest

    def _end_by_force(self, task: TaskRecord, outcome: Outcome, now: float) -> None:
        """End a task that did not end by itself, whatever it does now."""
        if task.is_final:
            return
        runner = self._runner_of(task)
        if runner is None:
            self._finish(task, outcome, now)
        elif len(runner.inbox) > 1:
            # Its process has other tasks too. First they go elsewhere; then, if this one had begun, the process ends.
            task.verdict = outcome
            self.dispatcher.order_take_back(runner)
        else:
            self._kill_head(runner, outcome, now)

    def _kill_head(self, runner: Runner, outcome: Outcome, now: float) -> None:
        task = runner.inbox.popleft()
        runner.ended.append(task)
        self.dispatcher.kill(runner)
        self._finish(task, outcome, now)

    def _finish(self, task: TaskRecord, outcome: Outcome, now: float) -> None:
        """Take a task to its final state; from here on nothing changes what was decided."""
        task.state = move(task.state, _MOVE_OF.get(outcome, Move.FAIL))
        task.outcome = outcome
        task.finished_at = now
        task.request = None
        self.dispatcher.ready.remove(task)
        if task.runner_id is None:
            task.is_settled = True  # no process ever had it
        if task.waits:
            # What it was waiting for is of no use any more; follow-ups live on.
            for wait in task.waits:
                for child_id in wait.remaining:
                    child = self.tasks.get(child_id)
                    if child is not None and child.parent_id == task.task_id:
                        self._to_end.append((child_id, Outcome.CANCELLED))
            self.waiting.end_all(task)
        if task.waited_by:
            self.waiting.task_ended(task)
        if task.ends_with_client:
            self._ending_with.get(task.connection_id, set()).discard(task.task_id)
        self.dispatcher.effects.append(TaskFinished(task))
        self.retention.add(task)
        if len(self.retention) > self.retention.capacity:
            for dropped in self.retention.drop(now):
                self._forget(dropped)

    def _forget(self, task: TaskRecord) -> None:
        self.tasks.pop(task.task_id, None)
        self.dispatcher.effects.append(TaskForgotten(task))

    def _runner_of(self, task: TaskRecord) -> Runner | None:
        runner = self.dispatcher.runners.get(task.runner_id) if task.runner_id is not None else None
        return runner if runner is not None and task in runner.inbox else None
