"""Who runs next, and where: slots, runners and the ready queue."""

from __future__ import annotations

import math

from palpable._core.duration_estimates import DurationEstimates
from palpable._core.effects import Effect, KillRunner, ReleaseWait, SaveTask, SendTasks, StartRunner, TakeBack
from palpable._core.ready_queue import ReadyQueue
from palpable._core.runner import Runner
from palpable._core.slots import Slots
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import READY, START, Move, State, move

STEAL_AFTER_SECONDS = 0.005
"""How long a slot may be idle while tasks lie begun by nobody in another process' inbox."""

WHEN_IT_STARTS = move(READY, START)

LEASED_PER_SLOT = 4
"""Tasks saved as begun ahead of their start, for each slot, with a store."""


class Dispatcher:
    """Hands ready tasks to runners.

    The order of precedence for a free slot: a task whose wait is over (the deepest first), then the ready queue.

    Args:
        slot_count: how many tasks may run at once.
        max_tasks_per_process: worker mode: a process is replaced after this many tasks. None: never for that reason.
        is_durable: order that what is handed over is saved as such before.
    """

    def __init__(self, slot_count: int, max_tasks_per_process: int | None = None, *, is_durable: bool = False) -> None:
        self.slots = Slots(slot_count)
        self.ready = ReadyQueue()
        self.runners: dict[int, Runner] = {}
        self.resuming: list[TaskRecord] = []
        """Tasks that lack a slot to go on after a wait."""
        self.warm: list[Runner] = []
        """Idle runners of worker mode; the one used last is used first."""
        self.estimates = DurationEstimates()
        self.effects: list[Effect] = []
        self.steal_at = math.inf
        self.next_timeout_at = math.inf
        """No attempt times out before this moment."""
        self._is_durable = is_durable
        self._only_urgent = False
        self._max_tasks_per_process = max_tasks_per_process
        self._next_runner_id = 1
        self.waiting_count = 0
        """Runners that wait for sub-tasks, their slot given up."""

    # --- starting ---

    def dispatch(self, now: float, *, only_urgent: bool = False) -> None:
        """Fill the free slots, top up short batches, and plan to rebalance when a slot stays idle.

        Args:
            only_urgent: start nothing but what a running task waits for.
        """
        slots, ready = self.slots, self.ready
        self._only_urgent = only_urgent
        while self.resuming and slots.free_count:
            self._resume(self._take_deepest_resuming())
        if len(ready):
            while slots.free_count:
                task = self._next_ready()
                if task is None:
                    break
                self._start_somewhere(task, now)
        if len(ready):
            for runner in slots.runners():
                if runner.isolation == "worker":
                    self._top_up(runner, now)
            if self._is_durable and not slots.free_count:
                self._lease_ahead()
        if slots.free_count and not len(ready) and slots.has_queue():
            self.steal_at = min(self.steal_at, now + STEAL_AFTER_SECONDS)
        else:
            self.steal_at = math.inf

    def _next_ready(self) -> TaskRecord | None:
        """Return the task that may start next. Those that are waited for are the first of all."""
        task = self.ready.first()
        return None if task is None or (self._only_urgent and not task.urgency) else task

    def _start_somewhere(self, task: TaskRecord, now: float) -> None:
        if task.isolation == "worker" and self.warm:
            runner = self.warm.pop()
        else:
            runner = Runner(runner_id=self._next_runner_id, isolation=task.isolation)
            self._next_runner_id += 1
            self.runners[runner.runner_id] = runner
            self.effects.append(StartRunner(runner.runner_id, task.isolation))
        self.slots.occupy(runner)
        count = 1
        # Half of the fair share at most: the other slots want some too.
        if task.isolation == "worker" and (share := len(self.ready) // (2 * self.slots.count)) > 1:
            count = min(self.estimates.batch_size(task.kind), share)
        self._hand(runner, count, now)

    def _lease_ahead(self) -> None:
        """Have the next tasks saved as begun while others run, so that a free slot need not wait for the disk.

        With isolation "worker" they are handed over ahead, which comes to the same. What may run at most once is not
        leased: it would be lost with the server, though it had not begun.
        """
        count = self.slots.count
        if all(task.is_leased or not _can_be_leased(task) for task in self.ready.next_few(count)):
            return
        for task in self.ready.next_few(LEASED_PER_SLOT * count):
            if not task.is_leased and _can_be_leased(task):
                task.is_leased = True
                self.effects.append(SaveTask(task))

    def _top_up(self, runner: Runner, now: float) -> None:
        """Keep the inbox of a runner of short tasks from running dry."""
        if runner.is_ending or runner.is_waiting or runner.is_emptying:
            return
        task = self._next_ready()
        if task is None or task.isolation != "worker":
            return
        size = self.estimates.batch_size(task.kind)
        if size > 1 and len(runner.inbox) <= size // 2:
            self._hand(runner, size - len(runner.inbox), now)

    def _hand(self, runner: Runner, count: int, now: float) -> None:
        """Hand the runner up to `count` ready tasks of its isolation."""
        tasks: list[TaskRecord] = []
        inbox, ready, runner_id, isolation = runner.inbox, self.ready, runner.runner_id, runner.isolation
        if self._max_tasks_per_process is not None:
            count = min(count, self._max_tasks_per_process - runner.tasks_run - len(inbox))
        was_empty = not inbox
        while len(tasks) < count:
            task = ready.first()
            if task is None or (self._only_urgent and not task.urgency) or task.isolation != isolation:
                break
            if task.policy.at_most_once and inbox:
                break  # it is lost when the server ends after it was handed over, so it is only handed over to begin
            alike = ready.take_alike(1 if task.policy.at_most_once else count - len(tasks))
            for task in alike:
                task.runner_id = runner_id
            inbox.extend(alike)
            tasks += alike
        if not tasks:
            return
        if was_empty:
            self.begin_head(runner, now)
        if self._is_durable:
            # From here on they may have begun, for all that is known after a crash of this server.
            for task in tasks:
                if not task.is_leased:
                    self.effects.append(SaveTask(task))
                task.is_leased = False
        self.effects.append(SendTasks(runner.runner_id, tasks, runner.taken_back))
        runner.taken_back = 0

    def begin_head(self, runner: Runner, now: float) -> None:
        """The first task of the inbox runs from now on."""
        task = runner.inbox[0]
        task.state = WHEN_IT_STARTS if task.state is READY else move(task.state, START)
        task.attempt += 1
        task.started_at = runner.head_since = now
        timeout_seconds = task.policy.timeout_seconds
        if timeout_seconds is not None and now + timeout_seconds < self.next_timeout_at:
            self.next_timeout_at = now + timeout_seconds

    # --- ending ---

    def runner_is_free(self, runner: Runner) -> None:
        """Its inbox is empty: it becomes warm again, or ends."""
        if runner.is_emptying:
            return  # once that is answered
        self.slots.release(runner)
        self._wait_no_more(runner)
        if runner.isolation == "task":
            runner.is_ending = True
        elif not runner.is_ending:
            is_worn = self._max_tasks_per_process is not None and runner.tasks_run >= self._max_tasks_per_process
            if is_worn or len(self.warm) >= self.slots.count:
                self.kill(runner, is_graceful=False)
            else:
                self.warm.append(runner)

    def kill(self, runner: Runner, *, is_graceful: bool = True) -> None:
        runner.is_ending = True
        self.effects.append(KillRunner(runner.runner_id, is_graceful))

    def forget_runner(self, runner: Runner) -> None:
        """Its process is gone."""
        self.slots.release(runner)
        self._wait_no_more(runner)
        self.runners.pop(runner.runner_id, None)
        if runner in self.warm:
            self.warm.remove(runner)

    def put_back_last(self, runner: Runner, count: int) -> list[TaskRecord]:
        """Make the last `count` tasks of the inbox ready again, at the front; return them."""
        tasks = [runner.inbox.pop() for _ in range(min(count, len(runner.inbox)))]
        for task in tasks:  # the newest first, each to the front: the old order is kept
            task.runner_id = None
            if task.state is State.RUNNING:
                task.state = move(task.state, Move.TAKE_BACK)
                task.attempt -= 1
                task.started_at = None
            self.ready.put_back(task)
            if self._is_durable:
                self.effects.append(SaveTask(task))
        return tasks

    def order_take_back(self, runner: Runner) -> None:
        if not runner.is_emptying:
            runner.is_emptying = True
            self.effects.append(TakeBack(runner.runner_id))

    def steal(self, now: float) -> None:
        """A slot has been idle for a while: take back what lies behind slow tasks."""
        self.steal_at = math.inf
        if self.slots.free_count and not len(self.ready):
            for runner in self.slots.runners():
                if len(runner.inbox) > 1 and now - runner.head_since >= STEAL_AFTER_SECONDS / 2:
                    self.order_take_back(runner)

    # --- waiting for sub-tasks ---

    def pause(self, runner: Runner) -> None:
        """Its task waits: the slot is free meanwhile, and what it has not begun runs elsewhere."""
        if not runner.is_waiting:
            runner.is_waiting = True
            self.waiting_count += 1
            self.slots.release(runner)
        if len(runner.inbox) > 1:
            self.order_take_back(runner)

    def _wait_no_more(self, runner: Runner) -> None:
        if runner.is_waiting:
            runner.is_waiting = False
            self.waiting_count -= 1

    def want_slot(self, task: TaskRecord) -> None:
        """A wait of this task is over: it goes on as soon as it has a slot."""
        runner = self.runners.get(task.runner_id or 0)
        if runner is None or runner.is_ending:
            return
        if runner.is_waiting:
            if task not in self.resuming:
                self.resuming.append(task)
        else:
            self._release_satisfied(task)

    def _take_deepest_resuming(self) -> TaskRecord:
        task = max(self.resuming, key=lambda waiting: waiting.depth)
        self.resuming.remove(task)
        return task

    def _resume(self, task: TaskRecord) -> None:
        runner = self.runners.get(task.runner_id or 0)
        if runner is None or runner.is_ending or task.state is not State.RUNNING:
            return
        self._release_satisfied(task)
        if task.waits:
            # Other threads of it wait on, for tasks that may need this very slot. So a task has its slot back only
            # when no thread of it waits; until then those that go on run beside the slots.
            return
        self.slots.occupy(runner)
        self._wait_no_more(runner)

    def _release_satisfied(self, task: TaskRecord) -> None:
        waits = task.waits or []
        for wait in [wait for wait in waits if wait.is_satisfied]:
            waits.remove(wait)
            self.effects.append(ReleaseWait(wait.connection_id, wait.wait_id))


def _can_be_leased(task: TaskRecord) -> bool:
    return task.isolation == "task" and not task.policy.at_most_once
