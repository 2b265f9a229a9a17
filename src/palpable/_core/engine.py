"""The engine: every decision about every task.

Events in, effects out: `handle` takes what happened and the time, and returns what is to be done, in order: all effects
of one event before those of the next, also when carrying one out brings a new event. It opens nothing, sleeps never,
reads no clock and draws no random number. After each event, `validate` (see `invariants`) must find nothing to say.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from palpable._core import events, recovery
from palpable._core.arrivals import Arrivals
from palpable._core.dispatch import WHEN_IT_STARTS, Dispatcher
from palpable._core.effects import Effect, TaskSettled
from palpable._core.endings import Endings, overdue_at
from palpable._core.retention import Retention
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import FINAL, READY, Move, Outcome, State, move
from palpable._core.waiting import Waiting


class Engine:
    """The tasks of one server, and what becomes of them.

    Args:
        slot_count: how many tasks run at once, not counting those that wait for sub-tasks.
        retention_capacity: finished tasks kept at most.
        retention_seconds: how long a finished task is kept.
        max_tasks_per_process: worker mode: a process is replaced after this many tasks.
        is_durable: order that every change is saved.
        first_sequence: the sequence number of the first task.
        rng: where the jitter of retries comes from.
    """

    def __init__(
        self,
        slot_count: int,
        *,
        retention_capacity: int = 100_000,
        retention_seconds: float = 60.0,
        max_tasks_per_process: int | None = None,
        is_durable: bool = False,
        first_sequence: int = 1,
        rng: random.Random | None = None,
    ) -> None:
        self.tasks: dict[str, TaskRecord] = {}
        """By id."""
        self.arrivals = Arrivals(self.tasks)
        self.is_durable = is_durable
        self.dispatcher = Dispatcher(slot_count, max_tasks_per_process, is_durable=is_durable)
        self.waiting = Waiting(self.tasks, self.dispatcher)
        self.retention = Retention(retention_capacity, retention_seconds)
        self.endings = Endings(
            self.tasks,
            self.arrivals,
            self.dispatcher,
            self.waiting,
            self.retention,
            is_durable=is_durable,
            rng=rng if rng is not None else random.Random(0),
        )
        self.schedule = self.endings.schedule
        self.is_draining = False
        self._next_sequence = first_sequence
        self._interrupted: set[str] = set()
        """Tasks that were running when the server before this one ended."""
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.TasksSubmitted: self._on_submitted,
            events.SubmissionsWithdrawn: self._on_withdrawn,
            events.TasksRecovered: self._on_recovered,
            events.ResultsRecovered: self._on_results_recovered,
            events.TasksEnded: self._on_ended,
            events.RunnerExited: self._on_runner_exited,
            events.TasksTakenBack: self._on_taken_back,
            events.WaitBegan: self._on_wait_began,
            events.WaitEnded: self._on_wait_ended,
            events.ConnectionClosed: self._on_connection_closed,
            events.EndRequested: self._on_end_requested,
            events.DrainRequested: self._on_drain_requested,
            events.StopRequested: self._on_stop_requested,
            events.PurgeRequested: self._on_purge_requested,
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
        endings, dispatcher = self.endings, self.dispatcher
        if endings.to_end:
            endings.end_all_due(now)
        if len(self.retention) > self.retention.capacity:
            endings.forget(self.retention.drop(now))
        if not endings.is_stopping:
            dispatcher.dispatch(now, only_urgent=self.is_draining)
        effects, dispatcher.effects = dispatcher.effects, []
        return effects

    @property
    def is_stopping(self) -> bool:
        """Whether `StopRequested` was handled: nothing is started any more."""
        return self.endings.is_stopping

    @property
    def next_wakeup(self) -> float:
        """When `TimePassed` is due, at the latest; infinity if nothing waits for time."""
        dispatcher = self.dispatcher
        return min(
            dispatcher.next_timeout_at, dispatcher.steal_at, self.schedule.next_due_at, self.retention.next_drop_at
        )

    def overdue_runners(self, now: float) -> list[int]:
        """Return the runners whose tasks will time out with the next `TimePassed`."""
        if now < self.dispatcher.next_timeout_at:
            return []
        return [runner.runner_id for runner in self.dispatcher.runners.values() if overdue_at(runner) <= now]

    @property
    def is_busy(self) -> bool:
        """Whether any task runs, or waits for others while it does."""
        return any(runner.inbox for runner in self.dispatcher.runners.values())

    def count_states(self) -> dict[str, int]:
        """Return how many tasks are in each state; takes no longer with a long queue."""
        counts: Counter[str] = Counter(task.state for task in self.schedule)
        for runner in self.dispatcher.runners.values():
            counts.update(task.state for task in runner.inbox)
            counts.update(task.state for task in runner.ended if task.state is State.RETRYING)
        counts[State.READY] += len(self.dispatcher.ready)
        counts.update(self.retention.counts)
        return {state: count for state, count in counts.items() if count}

    # --- events: tasks come ---

    def _on_submitted(self, event: events.TasksSubmitted, now: float) -> None:
        parent = self.tasks.get(event.parent_id) if event.parent_id else None
        depth = parent.depth + 1 if parent is not None else 0
        parent_id = parent.task_id if parent is not None else ""
        policy, due_at, connection_id = event.policy, event.due_at, event.connection_id
        tasks, isolation, sequence, name = self.tasks, policy.isolation, self._next_sequence, event.name
        added: list[TaskRecord] = []
        key, own_name, receiver = "", "", event.receiver
        for new in event.tasks:
            task_id = new.task_id
            # Each request has come with strings of its own. To hold one of each for all tasks that are alike takes less
            # memory, and looking up what is identical takes less time.
            if new.function_key != key:
                key = new.function_key
            if new.name != own_name:
                own_name = new.name
            # By position, which takes half as long as by name; the order is that of the fields.
            task = TaskRecord(
                task_id,
                new,
                name or own_name,
                key,
                policy,
                isolation,
                sequence,
                now,
                connection_id,
                parent_id,
                depth,
                receiver,
            )
            if tasks.setdefault(task_id, task) is task:  # else sent again: it was accepted before
                sequence += 1
                added.append(task)
        self._next_sequence = sequence
        self.arrivals.add_all(added)
        endings = self.endings
        if policy.ends_with_client:
            endings.ending_with.setdefault(connection_id, set()).update(task.task_id for task in added)
        if policy.is_followup and parent is not None:
            parent.followup_ids = [*(parent.followup_ids or ()), *(task.task_id for task in added)]
            endings.save(parent)
        if self.is_durable:
            for task in added:
                endings.save(task, is_new=True)
        if endings.is_stopping:
            endings.to_end.extend((task.task_id, Outcome.QUIT) for task in added)
        if due_at is not None and due_at > now:
            for task in added:
                task.state, task.due_at = State.SCHEDULED, due_at
                self.schedule.add(task)
        else:
            self.dispatcher.ready.add_all(added)

    def can_withdraw(self, task_id: str) -> bool:
        """Return whether a task was never handed to a process, and nothing else refers to it."""
        task = self.tasks.get(task_id)
        return task is not None and task.state in (State.READY, State.SCHEDULED) and task.runner_id is None

    def _on_withdrawn(self, event: events.SubmissionsWithdrawn, now: float) -> None:
        for task_id in event.task_ids:
            task = self.tasks[task_id]
            task.state = move(task.state, Move.FAIL)
            task.outcome, task.finished_at, task.due_at = Outcome.REJECTED, now, None
            self.dispatcher.ready.remove(task)
            self.waiting.task_ended(task)
            self.endings.ending_with.get(task.connection_id, set()).discard(task_id)
            parent = self.tasks.get(task.parent_id)
            if parent is not None and parent.followup_ids:
                parent.followup_ids = [followup for followup in parent.followup_ids if followup != task_id]
            self.endings.forget([task])

    def _on_recovered(self, event: events.TasksRecovered, now: float) -> None:
        self._interrupted.update(task.task_id for task in event.tasks if task.state is State.RUNNING)
        for task in event.tasks:
            self.tasks[task.task_id] = task
            self.arrivals.add(task)
            end = recovery.resume(task, self._interrupted, now)
            if task.state is State.READY:
                self.dispatcher.ready.add(task)
            elif task.due_at is not None:
                self.schedule.add(task)
            if end:
                self.endings.to_end.append((task.task_id, end))

    def _on_results_recovered(self, event: events.ResultsRecovered, now: float) -> None:
        self.retention.spare(now)
        for task in event.tasks:
            task.is_settled = True
            self.tasks[task.task_id] = task
            self.arrivals.add(task)
            self.retention.add([task])
        self.endings.forget(self.retention.drop(now))

    # --- events: tasks end ---

    def _on_ended(self, event: events.TasksEnded, now: float) -> None:
        runner = self.dispatcher.runners.get(event.runner_id)
        if runner is None:
            return
        endings, dispatcher = self.endings, self.dispatcher
        inbox, is_reused = runner.inbox, runner.isolation == "worker"
        well: list[TaskRecord] = []
        durations: dict[str, list[float]] = {}
        has_ended = False
        for ending in event.endings:
            # Against an answer that comes after the verdict: a task that was ended by force has left the inbox.
            if not inbox or inbox[0].task_id != ending.task_id:
                continue
            task = inbox.popleft()
            has_ended = True
            if task.state is READY:  # several have ended since we heard of the last one, and so it has begun, too
                task.state = WHEN_IT_STARTS
                task.attempt += 1
            runner.tasks_run += 1
            task.ending = ending
            if is_reused:
                task.cpu_seconds = ending.cpu_seconds
                task.peak_memory_bytes = ending.peak_memory_bytes
                task.is_settled = True
                # Its process knows better how long it took than we do, who hear of several ends at once.
                task.started_at = now - ending.elapsed_seconds
                kind = task.function_key or task.name
                if kind in durations:
                    durations[kind].append(ending.elapsed_seconds)
                else:
                    durations[kind] = [ending.elapsed_seconds]
            else:
                runner.ended.append(task)
            # What an earlier attempt left. To look is cheaper than to set, and mostly there is nothing.
            if task.exit_status is not None:
                task.exit_status = None
            if ending.is_successful:
                if task.error_type:
                    task.error_type = task.error_message = ""
                well.append(task)
            else:
                task.error_type, task.error_message = ending.error_type, ending.error_message
                endings.finish_well(well, now)
                well = []
                endings.attempt_failed(task, Outcome.ERROR, now, ending.error_bases)
        endings.finish_well(well, now)
        for kind, seconds in durations.items():
            dispatcher.estimates.learn(kind, seconds)
        if not has_ended:
            return
        if inbox:
            dispatcher.begin_head(runner, now)
        else:
            dispatcher.runner_is_free(runner)

    def _on_runner_exited(self, event: events.RunnerExited, now: float) -> None:
        runner = self.dispatcher.runners.get(event.runner_id)
        if runner is None:
            return
        if runner.inbox and event.unclaimed >= len(runner.inbox):
            runner.inbox[0].lost_processes += 1  # it was next, and the process ended before it began
        for task in self.dispatcher.put_back_last(runner, event.unclaimed):
            self.endings.end_put_back(task, now, event.exit_status)
        begun, runner.inbox = runner.inbox, deque()
        # One task, or none; more if the process was not listened to any more, and went on.
        for task in begun:
            if task.state is READY:
                task.state = WHEN_IT_STARTS
                task.attempt += 1
            task.exit_status = event.exit_status
            runner.ended.append(task)
            verdict = Outcome.NONE if task.is_verdict_void_once_begun else task.verdict
            self.endings.attempt_failed(task, verdict or Outcome.CRASHED, now)
        for task in runner.ended:
            task.exit_status = event.exit_status
            if runner.isolation == "task":
                task.cpu_seconds = event.cpu_seconds
            task.peak_memory_bytes = event.peak_memory_bytes
            if task.is_final:
                task.is_settled = True
                self.endings.save(task)
                self.dispatcher.effects.append(TaskSettled(task))
            elif task.state is State.RETRYING:
                self.endings.wait_for_retry(task, now)
        self.dispatcher.forget_runner(runner)

    def _on_taken_back(self, event: events.TasksTakenBack, now: float) -> None:
        runner = self.dispatcher.runners.get(event.runner_id)
        if runner is None:
            return
        runner.is_emptying = False
        runner.taken_back += event.count
        put_back = self.dispatcher.put_back_last(runner, event.count)
        if any(task.verdict is Outcome.TIMEOUT for task in put_back) and not runner.is_ending:
            # Its process did not begin a task within the time the task may take. The next one would fare no better.
            put_back[-1].lost_processes += 1
            self.dispatcher.kill(runner, is_graceful=False)
        for task in put_back:
            self.endings.end_put_back(task, now)
        if not runner.inbox:
            if not runner.is_ending and runner not in self.dispatcher.warm:
                self.dispatcher.runner_is_free(runner)
            return
        for task in runner.inbox:
            if task.is_verdict_void_once_begun:
                task.verdict, task.is_verdict_void_once_begun = Outcome.NONE, False
        head = runner.inbox[0]
        if head.verdict:
            self.endings.kill_head(runner, head.verdict, now)

    def _on_wait_began(self, event: events.WaitBegan, now: float) -> None:
        self.waiting.begin(event)

    def _on_wait_ended(self, event: events.WaitEnded, now: float) -> None:
        self.waiting.end(event.task_id, event.connection_id, event.wait_id)

    def _on_connection_closed(self, event: events.ConnectionClosed, now: float) -> None:
        if event.inside_task:
            self.waiting.end(event.inside_task, event.connection_id)
        for task_id in self.endings.ending_with.pop(event.connection_id, ()):
            self.endings.to_end.append((task_id, Outcome.CANCELLED))

    def _on_end_requested(self, event: events.EndRequested, now: float) -> None:
        if not event.spares_running:
            self.endings.to_end.extend((task_id, event.outcome) for task_id in event.task_ids)
            return
        for task_id in event.task_ids:
            task = self.tasks.get(task_id)
            if task is not None:
                self.endings.end_unless_begun(task, event.outcome)

    def _on_drain_requested(self, event: events.DrainRequested, now: float) -> None:
        self.is_draining = event.is_on

    def _on_stop_requested(self, event: events.StopRequested, now: float) -> None:
        self.endings.is_stopping = True
        for task in [task for task in self.tasks.values() if not task.is_final]:
            if event.hands_back:
                stays_interrupted = event.is_recovering and task.task_id in self._interrupted
                self.endings.hand_back(task, now, stays_interrupted=stays_interrupted)
                continue
            runner = self.endings.runner_of(task)
            if task.state is State.RUNNING and runner is not None:
                runner.inbox.remove(task)
                runner.ended.append(task)
            elif task.state is not State.RETRYING:
                task.runner_id = None
            self.endings.finish(task, Outcome.QUIT, now)
        for runner in self.dispatcher.runners.values():
            runner.inbox.clear()
            if not runner.is_ending:
                self.dispatcher.kill(runner)

    def _on_results_taken(self, event: events.ResultsTaken, now: float) -> None:
        tasks = self.tasks
        for task_id in event.task_ids:
            task = tasks.get(task_id)
            # With a key somebody else may ask for it, too.
            if task is not None and task.state in FINAL and not task.is_taken and not task.policy.idempotency_key:
                task.is_taken = True
                self.retention.taken_count += 1
                task.ending = None
                if self.is_durable:
                    self.endings.save(task)

    def _on_purge_requested(self, event: events.PurgeRequested, now: float) -> None:
        self.endings.forget(self.retention.purge(event.states, event.ended_before))

    def _on_time_passed(self, event: events.TimePassed, now: float) -> None:
        if now >= self.dispatcher.steal_at:
            self.dispatcher.steal(now)
        if now >= self.dispatcher.next_timeout_at:
            self.endings.end_overdue(now)
        for task in self.schedule.take_due(now):
            task.state, task.due_at = move(task.state, Move.DUE), None
            self.dispatcher.ready.add(task)
        self.endings.forget(self.retention.drop(now))
