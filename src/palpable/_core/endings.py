"""How attempts end, and tasks: by themselves, by force, for another attempt to follow, or for the next server."""

from __future__ import annotations

import math
import random
from collections import deque

from palpable._core import retry
from palpable._core.arrivals import Arrivals
from palpable._core.dispatch import Dispatcher
from palpable._core.effects import AttemptFailed, SaveTask, TasksFinished, TasksForgotten
from palpable._core.retention import Retention
from palpable._core.runner import Runner
from palpable._core.schedule import Schedule
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import RUNNING, SUCCEEDED, Move, Outcome, State, move
from palpable._core.waiting import Waiting

LOST_PROCESSES_MAX = 10
"""A task is rejected when this many processes have ended before they began it: it can't be started here."""
_WHEN_IT_SUCCEEDS = move(RUNNING, Move.SUCCEED)
_MOVE_OF = {outcome: Move.FAIL for outcome in Outcome} | {SUCCEEDED: Move.SUCCEED, Outcome.CANCELLED: Move.CANCEL}


class Endings:
    """The only one who takes a task to a final state. Parts are shared with the engine, which asks for this.

    Args:
        is_durable: order that every change is saved.
        rng: where the jitter of retries comes from.
    """

    def __init__(
        self,
        tasks: dict[str, TaskRecord],
        arrivals: Arrivals,
        dispatcher: Dispatcher,
        waiting: Waiting,
        retention: Retention,
        *,
        is_durable: bool,
        rng: random.Random,
    ) -> None:
        self.tasks = tasks
        self.arrivals = arrivals
        self.dispatcher = dispatcher
        self.waiting = waiting
        self.retention = retention
        self.schedule = Schedule()
        self.is_durable = is_durable
        self.is_stopping = False
        self.ending_with: dict[int, set[str]] = {}
        """By connection: the tasks to cancel when it closes."""
        self.to_end: deque[tuple[str, Outcome]] = deque()
        """Consequences of an event, worked off one by one: a tree of any depth, without recursion."""
        self._rng = rng

    def end_all_due(self, now: float) -> None:
        """Work off `to_end`, and what that adds to it."""
        while self.to_end:
            task_id, outcome = self.to_end.popleft()
            task = self.tasks.get(task_id)
            if task is not None:
                self.end_by_force(task, outcome, now)

    def end_overdue(self, now: float) -> None:
        earliest = math.inf
        for runner in self.dispatcher.runners.values():
            moment = overdue_at(runner)
            if moment <= now:
                self.to_end.append((runner.inbox[0].task_id, Outcome.TIMEOUT))
            else:
                earliest = min(earliest, moment)
        self.dispatcher.next_timeout_at = earliest

    def end_by_force(self, task: TaskRecord, outcome: Outcome, now: float) -> None:
        """End a task that did not end by itself, whatever it does now."""
        if task.is_final:
            return
        if outcome is Outcome.TIMEOUT and _has_firm_verdict(task):
            outcome = task.verdict  # another attempt may follow a timeout, which would overrule who asked for the end
        runner = self.runner_of(task)
        if runner is None:
            self.finish(task, outcome, now)
        elif len(runner.inbox) > 1:
            # Its process has other tasks too. First they go elsewhere; then, if this one had begun, the process ends.
            task.verdict, task.is_verdict_void_once_begun = outcome, False
            self.dispatcher.order_take_back(runner)
        else:
            self.kill_head(runner, outcome, now)

    def end_put_back(self, task: TaskRecord, now: float, exit_status: int | None = None) -> None:
        """End a task that was taken back from a process that had not begun it, if it was to end."""
        if task.verdict is Outcome.TIMEOUT:
            task.verdict = Outcome.NONE  # it took no time at all, and no attempt of it failed
        if task.verdict:
            self.finish(task, task.verdict, now)
        elif task.lost_processes >= LOST_PROCESSES_MAX:
            task.exit_status = exit_status
            self.finish(task, Outcome.REJECTED, now)

    def end_unless_begun(self, task: TaskRecord, outcome: Outcome) -> None:
        """End a task, but not if it runs. Who knows that of a task that was handed over is its process."""
        runner = self.runner_of(task)
        if runner is None:
            if task.state is not State.RUNNING:
                self.to_end.append((task.task_id, outcome))
        elif len(runner.inbox) > 1 and not task.verdict:
            task.verdict, task.is_verdict_void_once_begun = outcome, True
            self.dispatcher.order_take_back(runner)

    def kill_head(self, runner: Runner, outcome: Outcome, now: float) -> None:
        task = runner.inbox.popleft()
        runner.ended.append(task)
        self.dispatcher.kill(runner)
        self.attempt_failed(task, outcome, now)

    def attempt_failed(self, task: TaskRecord, outcome: Outcome, now: float, error_bases: tuple[str, ...] = ()) -> None:
        """An attempt ended, and not well: the next one follows, or the task ends."""
        retry.count_failure(task, outcome)
        if self.is_stopping or not retry.may_retry(task, outcome, error_bases):
            self.finish(task, outcome, now)
            return
        if _has_firm_verdict(task) and task.verdict is not Outcome.TIMEOUT:
            # It was to end, and was quicker to fail while its process was asked what it had begun.
            task.ending = None
            self.finish(task, task.verdict, now)
            return
        task.state, task.due_at = move(task.state, Move.RETRY), None
        task.ending, task.verdict, task.is_settled = None, Outcome.NONE, False
        task.is_verdict_void_once_begun = False
        self.end_waits(task)
        # The next attempt must not meet what is left of this one. With isolation "worker" an error leaves nothing.
        if outcome is Outcome.ERROR and task.isolation == "worker":
            self.wait_for_retry(task, now)
        else:
            self.save(task)
        self.dispatcher.effects.append(AttemptFailed(task))

    def wait_for_retry(self, task: TaskRecord, now: float) -> None:
        """Nothing is left of the last attempt: its next one is due after a while."""
        task.runner_id = None
        task.due_at = now + retry.next_delay(task.policy, task.errors + task.crashes, self._rng)
        self.schedule.add(task)
        self.save(task)

    def hand_back(self, task: TaskRecord, now: float, *, stays_interrupted: bool = False) -> None:
        """The server stops, and the next one on this store goes on with the task. Burns no retry.

        Args:
            stays_interrupted: for that one it is to look as if this one had been killed while it ran: only then does
                it end what an interrupted attempt had submitted, which this one has not come to read.
        """
        runner = self.runner_of(task)
        if task.state is not State.RUNNING or runner is None:
            if runner is not None:
                # Handed over ahead. Its process goes on until it is killed, and what it begins until then nobody hears
                # of any more: so this attempt counts as made, and the next server makes another one.
                task.attempt += 1
                task.runner_id = None
                self.dispatcher.ready.put_back(task)
            if runner is not None or task.is_leased:
                task.is_leased = stays_interrupted
                self.save(task)
            return
        runner.inbox.remove(task)
        if task.policy.at_most_once:
            runner.ended.append(task)
            self.finish(task, Outcome.LOST, now)
            return
        task.state, task.runner_id, task.started_at = move(task.state, Move.RESCUE), None, None
        task.is_leased = stays_interrupted
        self.end_waits(task)
        self.dispatcher.ready.put_back(task)
        self.save(task)

    def finish(self, task: TaskRecord, outcome: Outcome, now: float) -> None:
        """Take a task to its final state; from here on nothing changes what was decided."""
        task.state = move(task.state, _MOVE_OF[outcome])
        task.outcome = outcome
        task.finished_at = now
        if task.due_at is not None:
            task.due_at = None
        if outcome is SUCCEEDED:
            task.request = None  # otherwise somebody may want to retry it
        if task.level is not None:
            self.dispatcher.ready.remove(task)
        if task.runner_id is None:
            task.is_settled = True  # no process has it
        if task.waits is not None:
            self.end_waits(task)
        if task.waited_by:
            self.waiting.task_ended(task)
        if task.policy.ends_with_client:
            self.ending_with.get(task.connection_id, set()).discard(task.task_id)
        self._tell_finished([task])

    def finish_well(self, tasks: list[TaskRecord], now: float) -> None:
        """As `finish` for each of these, which have succeeded. Most tasks do, and little of that is about them."""
        plain: list[TaskRecord] = []
        for task in tasks:
            if (
                task.state is not RUNNING
                or task.runner_id is None
                or task.level is not None
                or task.waits is not None
                or task.waited_by
                or task.due_at is not None
                or task.policy.ends_with_client
            ):
                self._tell_finished(plain)
                plain = []
                self.finish(task, SUCCEEDED, now)
                continue
            task.state = _WHEN_IT_SUCCEEDS
            task.outcome = SUCCEEDED
            task.finished_at = now
            task.request = None
            plain.append(task)
        self._tell_finished(plain)

    def _tell_finished(self, tasks: list[TaskRecord]) -> None:
        """Order that these are saved, and then told of; together with those that were finished just before."""
        if not tasks:
            return
        effects = self.dispatcher.effects
        finished = effects[-1] if effects else None
        if type(finished) is TasksFinished:
            effects.pop()
        else:
            finished = TasksFinished([])
        finished.tasks.extend(tasks)
        if self.is_durable:
            effects.extend([SaveTask(task) for task in tasks])
        effects.append(finished)
        self.retention.add(tasks)

    def end_waits(self, task: TaskRecord) -> None:
        """What a task waited for is of no use any more, now that its attempt has ended.

        Follow-ups live on, and so do tasks with a key: others may wait for them, the next attempt for one.
        """
        if task.waits is None:
            return
        # There may be no wait left, and the task still in want of a slot: its thread gave up.
        for wait in task.waits:
            for child_id in wait.remaining:
                child = self.tasks.get(child_id)
                if child is not None and child.parent_id == task.task_id and not child.policy.idempotency_key:
                    self.to_end.append((child_id, Outcome.CANCELLED))
        self.waiting.end_all(task)

    def save(self, task: TaskRecord, *, is_new: bool = False) -> None:
        if self.is_durable:
            self.dispatcher.effects.append(SaveTask(task, is_new))

    def forget(self, tasks: list[TaskRecord]) -> None:
        if not tasks:
            return
        for task in tasks:
            self.tasks.pop(task.task_id, None)
        self.arrivals.remove(tasks)
        self.dispatcher.effects.append(TasksForgotten(tasks))

    def runner_of(self, task: TaskRecord) -> Runner | None:
        runner = self.dispatcher.runners.get(task.runner_id) if task.runner_id is not None else None
        return runner if runner is not None and task in runner.inbox else None


def _has_firm_verdict(task: TaskRecord) -> bool:
    return bool(task.verdict) and not task.is_verdict_void_once_begun


def overdue_at(runner: Runner) -> float:
    """Return when the task that runs there times out; infinity if none does."""
    timeout_seconds = runner.inbox[0].timeout_seconds if runner.inbox and not runner.is_ending else None
    return math.inf if timeout_seconds is None else runner.head_since + timeout_seconds
