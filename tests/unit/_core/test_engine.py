"""The engine, one decision at a time."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from palpable._core import effects as out
from palpable._core import events
from palpable._core.engine import Engine
from palpable._core.invariants import validate
from palpable._core.ready_queue import ReadyQueue
from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._wire.messages import TaskEnded, TaskRequest


def submit(engine: Engine, *task_ids: str, now: float = 0.0, **options: Any) -> list[out.Effect]:
    about = {name: options.pop(name) for name in ("connection_id", "parent_id", "due_at") if name in options}
    new = [TaskRequest(task_id, "call", "key", b"", "f") for task_id in task_ids]
    return engine.handle(events.TasksSubmitted(new, TaskPolicy(**options), **about), now)


def end(engine: Engine, runner_id: int, task_id: str, now: float = 1.0, *, ok: bool = True) -> list[out.Effect]:
    ending = TaskEnded(task_id=task_id, is_successful=ok, elapsed_seconds=0.0001)
    return engine.handle(events.TasksEnded(runner_id, [ending]), now)


def of_type(effects: list[out.Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def finished_by(effects: list[out.Effect]) -> list[TaskRecord]:
    return [task for effect in of_type(effects, out.TasksFinished) for task in effect.tasks]


def started(effects: list[out.Effect]) -> list[list[str]]:
    return [[task.task_id for task in effect.tasks] for effect in of_type(effects, out.SendTasks)]


def test_a_submitted_task_starts_in_a_free_slot() -> None:
    engine = Engine(1)
    effects = submit(engine, "a")
    assert [type(effect) for effect in effects] == [out.StartRunner, out.SendTasks]
    assert engine.tasks["a"].state is State.RUNNING
    assert engine.tasks["a"].attempt == 1


def test_with_every_slot_taken_a_task_waits_for_the_first_to_end() -> None:
    engine = Engine(1)
    submit(engine, "a", "b")
    assert engine.tasks["b"].state is State.READY
    effects = end(engine, 1, "a")
    assert started(effects) == [["b"]]


def test_a_task_of_higher_priority_overtakes() -> None:
    engine = Engine(1)
    submit(engine, "running")
    submit(engine, "low")
    submit(engine, "high", priority=5)
    assert started(end(engine, 1, "running")) == [["high"]]


def test_submitting_a_known_id_again_changes_nothing() -> None:
    engine = Engine(1)
    submit(engine, "a")
    assert submit(engine, "a") == []
    assert len(engine.tasks) == 1


def test_an_ended_task_is_final_at_once_and_settled_when_its_process_is_gone() -> None:
    engine = Engine(1)
    submit(engine, "a")
    (finished,) = finished_by(end(engine, 1, "a"))
    assert finished.outcome is Outcome.SUCCEEDED
    assert not finished.is_settled
    effects = engine.handle(events.RunnerExited(1, 0, cpu_seconds=0.5, peak_memory_bytes=7), 2.0)
    (settled,) = of_type(effects, out.TaskSettled)
    assert (settled.task.exit_status, settled.task.cpu_seconds, settled.task.peak_memory_bytes) == (0, 0.5, 7)


def test_a_process_that_ends_without_a_word_has_crashed() -> None:
    engine = Engine(1)
    submit(engine, "a")
    effects = engine.handle(events.RunnerExited(1, -11), 1.0)
    (finished,) = finished_by(effects)
    assert (finished.state, finished.outcome) == (State.FAILED, Outcome.CRASHED)
    assert finished.exit_status == -11


def test_an_answer_after_a_cancel_changes_nothing() -> None:
    engine = Engine(1)
    submit(engine, "a")
    effects = engine.handle(events.EndRequested(["a"]), 1.0)
    assert of_type(effects, out.KillRunner)
    assert engine.tasks["a"].state is State.CANCELLED
    assert finished_by(end(engine, 1, "a")) == []
    assert engine.tasks["a"].state is State.CANCELLED


def test_a_cancelled_task_holds_its_slot_until_its_process_is_gone() -> None:
    engine = Engine(1)
    submit(engine, "a", "b")
    assert started(engine.handle(events.EndRequested(["a"]), 1.0)) == []
    assert started(engine.handle(events.RunnerExited(1, -15), 2.0)) == [["b"]]


def test_a_task_over_its_time_fails_with_a_timeout() -> None:
    engine = Engine(1)
    submit(engine, "a", timeout_seconds=10.0, now=100.0)
    assert engine.next_wakeup == 110.0
    assert finished_by(engine.handle(events.TimePassed(), 109.9)) == []
    (finished,) = finished_by(engine.handle(events.TimePassed(), 110.0))
    assert finished.outcome is Outcome.TIMEOUT


def test_a_waiting_task_frees_its_slot_and_gets_it_back_before_others() -> None:
    engine = Engine(1)
    submit(engine, "parent", "stranger")
    submit(engine, "child", parent_id="parent")
    effects = engine.handle(events.WaitBegan("parent", 7, 1, ["child"]), 1.0)
    assert started(effects) == [["child"]], "what is waited for goes before older tasks"
    effects = end(engine, 2, "child")
    assert [(wait.connection_id, wait.wait_id) for wait in of_type(effects, out.ReleaseWait)] == [(7, 1)]
    assert started(effects) == [], "the slot went to the parent, not to the stranger"
    assert validate(engine) == []


def _taken(queue: ReadyQueue) -> list[str]:
    """Take all; return their ids, in the order in which they leave."""
    taken = []
    while (task := queue.first()) is not None:
        (alone,) = queue.take_alike(1)
        assert alone is task
        taken.append(task.task_id)
    return taken


def _queue_of(*policies: TaskPolicy) -> tuple[ReadyQueue, list[TaskRecord]]:
    queue = ReadyQueue()
    tasks = [
        TaskRecord(str(number), None, "", "", policy, policy.isolation, number, 0.0)
        for number, policy in enumerate(policies)
    ]
    for task in tasks:
        queue.add(task)
    return queue, tasks


def test_tasks_leave_the_queue_together_while_they_are_alike() -> None:
    one, other, urgent = TaskPolicy(), TaskPolicy(isolation="worker"), TaskPolicy(priority=1)
    queue, tasks = _queue_of(one, one, one, one, other, one, urgent)
    queue.remove(tasks[2])
    assert queue.first() is tasks[6]
    assert queue.take_alike(9) == [tasks[6]]
    assert queue.first() is tasks[0]
    assert queue.take_alike(2) == tasks[:2]
    assert (queue.first(), len(queue)) == (tasks[3], 3)
    assert queue.take_alike(9) == [tasks[3]]
    assert (queue.first(), len(queue)) == (tasks[4], 2)
    assert queue.take_alike(9) == [tasks[4]]
    assert queue.first() is tasks[5]
    assert queue.take_alike(9) == [tasks[5]]
    assert (queue.first(), len(queue)) == (None, 0)
    assert all(task.level is None for task in tasks)


def test_what_a_task_no_longer_waits_for_goes_back_to_its_place_in_the_queue() -> None:
    engine = Engine(1)
    submit(engine, "parent", "older")
    submit(engine, "child", parent_id="parent")
    submit(engine, "younger")
    busy = submit(engine, "busy", priority=9)
    assert started(busy) == []
    engine.handle(events.WaitBegan("parent", 7, 1, ["older"]), 1.0)  # "older" runs, the parent waits
    engine.handle(events.WaitBegan("parent", 7, 2, ["child"]), 1.0)
    assert engine.tasks["child"].urgency == 1
    engine.handle(events.WaitEnded("parent", 7, 2), 2.0)
    assert engine.tasks["child"].urgency == 0
    assert validate(engine) == []
    queue = engine.dispatcher.ready
    assert _taken(queue) == ["busy", "child", "younger"]


def test_while_draining_nothing_starts_that_nobody_waits_for_any_more() -> None:
    engine = Engine(1)
    submit(engine, "parent", "first")
    submit(engine, "child", parent_id="parent")
    engine.handle(events.WaitBegan("parent", 7, 1, ["first"]), 1.0)
    engine.handle(events.WaitBegan("parent", 7, 2, ["child"]), 1.0)
    engine.handle(events.DrainRequested(True), 2.0)
    engine.handle(events.WaitEnded("parent", 7, 2), 2.0)
    end(engine, 2, "first", now=3.0)
    assert engine.tasks["child"].state is State.READY
    assert validate(engine) == []


def test_a_wait_for_a_task_that_has_ended_is_over_at_once_and_keeps_the_slot() -> None:
    engine = Engine(1)
    submit(engine, "parent")
    effects = engine.handle(events.WaitBegan("parent", 7, 1, ["unknown"]), 1.0)
    assert of_type(effects, out.ReleaseWait)
    assert engine.dispatcher.slots.free_count == 0


def test_a_wait_for_any_is_over_with_the_first() -> None:
    engine = Engine(2)
    submit(engine, "parent")
    submit(engine, "one", "two", parent_id="parent")
    engine.handle(events.WaitBegan("parent", 7, 1, ["one", "two"], "any"), 1.0)
    assert of_type(end(engine, 2, "one"), out.ReleaseWait)


def test_tasks_that_would_wait_for_each_other_are_refused() -> None:
    engine = Engine(2)
    submit(engine, "a", "b")
    engine.handle(events.WaitBegan("a", 1, 1, ["b"]), 1.0)
    (refusal,) = of_type(engine.handle(events.WaitBegan("b", 2, 5, ["a"]), 1.0), out.RefuseWait)
    assert (refusal.connection_id, refusal.wait_id) == (2, 5)


def test_a_task_that_waits_for_itself_is_refused() -> None:
    engine = Engine(1)
    submit(engine, "a")
    assert of_type(engine.handle(events.WaitBegan("a", 1, 1, ["a"]), 1.0), out.RefuseWait)


def test_a_parent_that_ends_takes_along_what_it_waited_for_and_leaves_the_rest() -> None:
    engine = Engine(1)
    submit(engine, "parent")
    submit(engine, "waited", parent_id="parent")
    submit(engine, "followup", parent_id="parent", is_followup=True)
    engine.handle(events.WaitBegan("parent", 7, 1, ["waited"]), 1.0)
    engine.handle(events.RunnerExited(1, -9), 2.0)
    assert engine.tasks["waited"].state is State.CANCELLED
    assert engine.tasks["followup"].state in (State.READY, State.RUNNING)
    assert engine.tasks["parent"].followup_ids == ["followup"]


def test_a_parent_that_ends_leaves_a_task_with_a_key_alone() -> None:
    engine = Engine(2)
    submit(engine, "parent")
    submit(engine, "keyed", parent_id="parent", idempotency_key="k")
    engine.handle(events.WaitBegan("parent", 7, 1, ["keyed"]), 1.0)
    engine.handle(events.EndRequested(["parent"]), 2.0)
    assert engine.tasks["parent"].state is State.CANCELLED
    assert engine.tasks["keyed"].state is State.RUNNING
    assert not engine.tasks["keyed"].waited_by
    validate(engine)


def test_a_chain_of_a_thousand_waiting_tasks_is_cancelled_without_recursion() -> None:
    engine = Engine(1)
    submit(engine, "t0")
    for depth in range(1000):
        submit(engine, f"t{depth + 1}", parent_id=f"t{depth}")
        engine.handle(events.WaitBegan(f"t{depth}", 7, depth, [f"t{depth + 1}"]), 1.0)
    engine.handle(events.EndRequested(["t0"]), 2.0)
    assert all(task.state is State.CANCELLED for task in engine.tasks.values())


def make_batch(engine: Engine) -> None:
    """Teach the engine that tasks are short, and let one runner hold several."""
    submit(engine, "teacher", isolation="worker")
    end(engine, 1, "teacher")
    submit(engine, *(f"t{number}" for number in range(20)), isolation="worker")


def test_short_tasks_of_worker_mode_are_handed_over_in_batches() -> None:
    engine = Engine(1)
    make_batch(engine)
    assert len(engine.dispatcher.runners[1].inbox) > 5
    assert [task.state for task in engine.dispatcher.runners[1].inbox][:2] == [State.RUNNING, State.READY]


def test_a_crash_fails_the_task_that_had_begun_and_no_other() -> None:
    engine = Engine(1)
    make_batch(engine)
    handed = [task.task_id for task in engine.dispatcher.runners[1].inbox]
    effects = engine.handle(events.RunnerExited(1, -11, unclaimed=len(handed) - 1), 2.0)
    assert [task.task_id for task in finished_by(effects)] == [handed[0]]
    assert started(effects)[0][0] == handed[1], "the others run elsewhere, in their old order"
    assert validate(engine) == []


def test_a_process_that_crashes_between_two_tasks_fails_none() -> None:
    engine = Engine(1)
    make_batch(engine)
    count = len(engine.dispatcher.runners[1].inbox)
    effects = engine.handle(events.RunnerExited(1, 0, unclaimed=count), 2.0)
    assert finished_by(effects) == []
    assert engine.tasks["t0"].attempt == 1


def test_a_task_whose_process_ended_before_it_began_runs_elsewhere() -> None:
    engine = Engine(1)
    submit(engine, "a")
    effects = engine.handle(events.RunnerExited(1, -9, unclaimed=1), 1.0)
    assert started(effects) == [["a"]]
    assert (engine.tasks["a"].state, engine.tasks["a"].attempt) == (State.RUNNING, 1)


def test_a_task_that_no_process_lives_to_begin_is_rejected_in_the_end() -> None:
    engine = Engine(1)
    submit(engine, "a")
    for _ in range(10):
        engine.handle(events.RunnerExited(engine.tasks["a"].runner_id or 0, -9, unclaimed=1), 1.0)
    assert engine.tasks["a"].outcome is Outcome.REJECTED
    assert validate(engine) == []


def test_cancelling_a_task_in_a_batch_takes_the_batch_back_and_spares_the_process() -> None:
    engine = Engine(1)
    make_batch(engine)
    count = len(engine.dispatcher.runners[1].inbox)
    effects = engine.handle(events.EndRequested(["t2"]), 2.0)
    assert of_type(effects, out.TakeBack)
    effects = engine.handle(events.TasksTakenBack(1, count - 1), 2.0)
    assert engine.tasks["t2"].state is State.CANCELLED
    assert of_type(effects, out.KillRunner) == []
    assert validate(engine) == []


def test_of_a_batch_only_what_has_not_begun_is_cancelled_when_what_runs_is_spared() -> None:
    engine = Engine(1)
    make_batch(engine)
    inbox = [task.task_id for task in engine.dispatcher.runners[1].inbox]
    queued = sorted(set(engine.tasks) - {*inbox, "teacher"})
    effects = engine.handle(events.EndRequested([*inbox, *queued, "teacher", "unknown"], spares_running=True), 2.0)
    assert of_type(effects, out.TakeBack)
    assert all(engine.tasks[task_id].state is State.CANCELLED for task_id in queued)
    # The process had claimed a second one by then.
    effects = engine.handle(events.TasksTakenBack(1, len(inbox) - 2), 2.0)
    assert of_type(effects, out.KillRunner) == []
    assert [task.task_id for task in engine.dispatcher.runners[1].inbox] == inbox[:2]
    assert all(engine.tasks[task_id].state is State.CANCELLED for task_id in inbox[2:])
    end(engine, 1, inbox[0])
    end(engine, 1, inbox[1])
    assert [engine.tasks[task_id].outcome for task_id in inbox[:2]] == [Outcome.SUCCEEDED] * 2
    assert validate(engine) == []


def test_a_task_that_runs_alone_is_spared() -> None:
    engine = Engine(1)
    submit(engine, "a", "b")
    effects = engine.handle(events.EndRequested(["a", "b"], spares_running=True), 1.0)
    assert of_type(effects, out.KillRunner) == []
    assert (engine.tasks["a"].state, engine.tasks["b"].state) == (State.RUNNING, State.CANCELLED)


def test_a_cancel_that_spares_nothing_overrules_one_that_did() -> None:
    engine = Engine(1)
    make_batch(engine)
    inbox = [task.task_id for task in engine.dispatcher.runners[1].inbox]
    engine.handle(events.EndRequested(inbox, spares_running=True), 2.0)
    engine.handle(events.EndRequested(inbox[:1]), 2.0)
    effects = engine.handle(events.TasksTakenBack(1, len(inbox) - 1), 2.0)
    assert of_type(effects, out.KillRunner)
    assert engine.tasks[inbox[0]].state is State.CANCELLED
    assert validate(engine) == []


def test_a_spared_task_whose_process_dies_has_crashed() -> None:
    engine = Engine(1)
    make_batch(engine)
    inbox = [task.task_id for task in engine.dispatcher.runners[1].inbox]
    engine.handle(events.EndRequested(inbox, spares_running=True), 2.0)
    engine.handle(events.RunnerExited(1, -9, unclaimed=len(inbox) - 1), 2.0)
    assert engine.tasks[inbox[0]].outcome is Outcome.CRASHED
    assert all(engine.tasks[task_id].state is State.CANCELLED for task_id in inbox[1:])
    assert validate(engine) == []


def test_what_lies_behind_a_slow_task_is_taken_back_when_another_slot_is_idle() -> None:
    engine = Engine(2)
    make_batch(engine)
    busy = [runner for runner in engine.dispatcher.runners.values() if runner.inbox]
    for runner in busy[1:]:
        for task in list(runner.inbox):
            end(engine, runner.runner_id, task.task_id, now=1.0)
    assert engine.next_wakeup < 1.1
    effects = engine.handle(events.TimePassed(), 1.1)
    assert of_type(effects, out.TakeBack) or not any(len(r.inbox) > 1 for r in engine.dispatcher.runners.values())


def test_results_are_dropped_by_number_oldest_first() -> None:
    engine = Engine(1, retention_capacity=2)
    for name in "abc":
        submit(engine, name)
        effects = end(engine, engine.tasks[name].runner_id or 0, name)
    assert [task.task_id for effect in of_type(effects, out.TasksForgotten) for task in effect.tasks] == ["a"]
    assert list(engine.tasks) == ["b", "c"]


def test_results_are_dropped_by_age() -> None:
    engine = Engine(1, retention_seconds=60.0)
    submit(engine, "a")
    end(engine, 1, "a", now=1.0)
    assert engine.next_wakeup == 61.0
    engine.handle(events.TimePassed(), 61.0)
    assert engine.tasks == {}


def test_a_result_of_an_earlier_start_is_kept_for_a_minute_whatever_its_age() -> None:
    engine = Engine(1, retention_seconds=3600.0, retention_capacity=2)
    results = [
        TaskRecord(
            task_id=name,
            request=None,
            name=name,
            function_key="",
            policy=TaskPolicy(),
            isolation="task",
            sequence=number,
            submitted_at=-1e6,
            state=State.SUCCEEDED,
            outcome=Outcome.SUCCEEDED,
            finished_at=-1e6,
        )
        for number, name in enumerate("abc", 1)
    ]
    engine.handle(events.ResultsRecovered(results), 10.0)
    assert list(engine.tasks) == ["b", "c"], "their number is limited as ever"
    assert engine.next_wakeup == 70.0
    engine.handle(events.TimePassed(), 69.0)
    assert list(engine.tasks) == ["b", "c"]
    engine.handle(events.TimePassed(), 70.0)
    assert engine.tasks == {}


def test_a_taken_result_is_gone_and_its_facts_stay() -> None:
    engine = Engine(1)
    submit(engine, "a")
    end(engine, 1, "a")
    engine.handle(events.ResultsTaken(["a"]), 2.0)
    assert engine.tasks["a"].is_taken
    assert engine.tasks["a"].ending is None


def test_a_connection_that_closes_takes_its_ephemeral_tasks_along() -> None:
    engine = Engine(1)
    submit(engine, "mine", connection_id=1, ends_with_client=True)
    submit(engine, "stays", connection_id=1)
    engine.handle(events.ConnectionClosed(1), 1.0)
    assert engine.tasks["mine"].state is State.CANCELLED
    assert not engine.tasks["stays"].is_final


def test_a_stop_ends_everything_and_what_comes_after() -> None:
    engine = Engine(1)
    submit(engine, "running", "ready")
    effects = engine.handle(events.StopRequested(), 1.0)
    assert {task.task_id for task in finished_by(effects)} == {"running", "ready"}
    assert of_type(effects, out.KillRunner)
    submit(engine, "late")
    assert engine.tasks["late"].outcome is Outcome.QUIT


def test_a_worker_process_is_renewed_after_its_number_of_tasks() -> None:
    engine = Engine(1, max_tasks_per_process=2)
    submit(engine, "a", isolation="worker")
    assert of_type(end(engine, 1, "a"), out.KillRunner) == []
    submit(engine, "b", isolation="worker")
    assert of_type(end(engine, 1, "b"), out.KillRunner)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_nothing_leads_out_of_a_final_state(state: State) -> None:
    from palpable._core.task_state import TRANSITIONS

    assert not [pair for pair in TRANSITIONS if pair[0] is state]


def test_an_attempt_that_failed_is_followed_by_another_after_a_wait() -> None:
    engine = Engine(1)
    submit(engine, "a", retries=1, backoff_seconds=10.0)
    effects = end(engine, 1, "a", ok=False)
    assert finished_by(effects) == []
    assert engine.tasks["a"].state is State.RETRYING and engine.tasks["a"].due_at is None
    engine.handle(events.RunnerExited(1, 0), 2.0)
    due_at = engine.tasks["a"].due_at
    assert due_at is not None and 2.0 <= due_at <= 12.0
    assert engine.next_wakeup == due_at
    assert started(engine.handle(events.TimePassed(), due_at)) == [["a"]]
    (finished,) = finished_by(end(engine, 2, "a", due_at + 1, ok=False))
    assert (finished.outcome, finished.attempt, finished.errors) == (Outcome.ERROR, 2, 2)


def test_a_timed_out_attempt_is_not_followed_by_another_before_its_process_is_gone() -> None:
    engine = Engine(2)
    submit(engine, "a", timeout_seconds=5.0, retries=1, backoff_seconds=0.0)
    assert of_type(engine.handle(events.TimePassed(), 5.0), out.KillRunner)
    assert started(engine.handle(events.TimePassed(), 100.0)) == []
    engine.handle(events.RunnerExited(1, -9), 101.0)
    assert started(engine.handle(events.TimePassed(), 101.0)) == [["a"]]


def test_crashes_are_counted_apart_from_errors() -> None:
    engine = Engine(1)
    submit(engine, "a", retries=5)
    (finished,) = finished_by(engine.handle(events.RunnerExited(1, -9), 1.0))
    assert finished.outcome is Outcome.CRASHED
    submit(engine, "b", crash_retries=1, backoff_seconds=0.0, now=2.0)
    assert finished_by(engine.handle(events.RunnerExited(2, -9), 3.0)) == []
    assert started(engine.handle(events.TimePassed(), 3.0)) == [["b"]]


def test_tasks_that_are_heard_of_together_have_each_its_own_duration() -> None:
    engine = Engine(1)
    submit(engine, "first", "a", "b", "c", isolation="worker")
    handed = started(end(engine, 1, "first", now=1.0))
    assert [task_id for task_ids in handed for task_id in task_ids] == ["a", "b", "c"]
    durations = {"a": 0.25, "b": 0.5, "c": 0.125}
    endings = [TaskEnded(task_id=name, is_successful=True, elapsed_seconds=took) for name, took in durations.items()]
    tasks = finished_by(engine.handle(events.TasksEnded(1, endings), 3.0))
    assert {task.task_id: (task.finished_at or 0) - (task.started_at or 0) for task in tasks} == durations


def test_only_errors_that_were_named_are_retried() -> None:
    engine = Engine(1)
    submit(engine, "a", retries=5, retry_on=("builtins.OSError",))
    ending = TaskEnded(
        task_id="a", is_successful=False, elapsed_seconds=0.1, error_bases=("builtins.ValueError", "builtins.Exception")
    )
    (finished,) = finished_by(engine.handle(events.TasksEnded(1, [ending]), 1.0))
    assert finished.outcome is Outcome.ERROR
    engine.handle(events.RunnerExited(1, 0), 1.0)
    submit(engine, "b", retries=5, retry_on=("builtins.OSError",), now=2.0)
    ending = TaskEnded(
        task_id="b", is_successful=False, elapsed_seconds=0.1, error_bases=("m.Mine", "builtins.OSError")
    )
    assert finished_by(engine.handle(events.TasksEnded(2, [ending]), 3.0)) == []


def test_a_cancel_between_two_attempts_ends_the_task() -> None:
    engine = Engine(1)
    submit(engine, "a", retries=1)
    end(engine, 1, "a", ok=False)
    (finished,) = finished_by(engine.handle(events.EndRequested(["a"]), 1.5))
    assert finished.state is State.CANCELLED and not finished.is_settled
    (settled,) = of_type(engine.handle(events.RunnerExited(1, 0), 2.0), out.TaskSettled)
    assert settled.task.is_settled


def test_a_scheduled_task_starts_when_it_is_due() -> None:
    engine = Engine(1)
    assert started(submit(engine, "a", due_at=50.0)) == []
    assert (engine.tasks["a"].state, engine.next_wakeup) == (State.SCHEDULED, 50.0)
    assert started(engine.handle(events.TimePassed(), 49.9)) == []
    assert started(engine.handle(events.TimePassed(), 50.0)) == [["a"]]


def test_what_may_run_once_is_never_handed_over_ahead() -> None:
    engine = Engine(1)
    submit(engine, "first", isolation="worker")
    end(engine, 1, "first")
    submit(engine, "a", "b", isolation="worker", now=2.0)
    submit(engine, "once", isolation="worker", at_most_once=True, now=2.0)
    submit(engine, "c", isolation="worker", now=2.0)
    handed = {task.task_id for runner in engine.dispatcher.runners.values() for task in runner.inbox}
    assert "a" in handed and not handed & {"once", "c"}


def test_what_changed_is_saved_before_anyone_is_told() -> None:
    engine = Engine(1, is_durable=True)
    effects = submit(engine, "a")
    assert [type(effect) for effect in effects] == [out.SaveTask, out.StartRunner, out.SaveTask, out.SendTasks]
    assert [type(effect) for effect in end(engine, 1, "a")] == [out.SaveTask, out.TasksFinished]


def test_a_task_that_could_not_be_stored_never_was() -> None:
    engine = Engine(1, is_durable=True)
    submit(engine, "running")
    submit(engine, "a", "b")
    assert engine.can_withdraw("a") and not engine.can_withdraw("running")
    effects = engine.handle(events.SubmissionsWithdrawn(["a"]), 1.0)
    assert [task.task_id for effect in of_type(effects, out.TasksForgotten) for task in effect.tasks] == ["a"]
    assert finished_by(effects) == [] and "a" not in engine.tasks
    assert started(end(engine, 1, "running")) == [["b"]]


def test_a_draining_engine_starts_only_what_is_waited_for() -> None:
    engine = Engine(1)
    submit(engine, "parent", "stranger")
    engine.handle(events.DrainRequested(), 1.0)
    submit(engine, "child", parent_id="parent")
    assert started(engine.handle(events.WaitBegan("parent", 7, 1, ["child"]), 2.0)) == [["child"]]
    end(engine, 2, "child")
    end(engine, 1, "parent")
    assert not engine.is_busy and engine.tasks["stranger"].state is State.READY
    assert started(engine.handle(events.DrainRequested(False), 4.0)) == [["stranger"]]


def test_a_server_that_stops_hands_back_what_runs() -> None:
    engine = Engine(2, is_durable=True)
    submit(engine, "a", "b", "c")
    submit(engine, "once", at_most_once=True)
    engine.handle(events.RunnerExited(1, -9), 1.0)  # "a" crashed, "c" took its slot
    end(engine, 2, "b")
    effects = engine.handle(events.StopRequested(hands_back=True), 2.0)
    assert {task_id: task.state.value for task_id, task in engine.tasks.items()} == {
        "a": "failed",
        "b": "succeeded",
        "c": "ready",
        "once": "failed",
    }
    assert engine.tasks["once"].outcome is Outcome.LOST
    assert len(of_type(effects, out.KillRunner)) == 2
    assert validate(engine) == []


def test_what_was_handed_over_ahead_may_have_begun_when_a_server_stops() -> None:
    engine = Engine(1, is_durable=True)
    submit(engine, "known", isolation="worker")
    end(engine, 1, "known")  # in a tenth of a millisecond: so several are handed over at once
    submit(engine, *(f"t{number}" for number in range(8)), isolation="worker")
    ahead = list(engine.dispatcher.runners[1].inbox)[1:]
    assert ahead and {(task.state, task.attempt) for task in ahead} == {(State.READY, 0)}
    engine.handle(events.StopRequested(hands_back=True), 2.0)
    assert {(task.state, task.attempt, task.runner_id) for task in ahead} == {(State.READY, 1, None)}
    assert validate(engine) == []


def test_a_purge_forgets_what_ended_before_the_moment() -> None:
    engine = Engine(1)
    submit(engine, "a")
    end(engine, 1, "a", now=10.0)
    engine.handle(events.RunnerExited(1, 0), 10.0)
    submit(engine, "b", now=11.0)
    end(engine, 2, "b", now=20.0)
    effects = engine.handle(events.PurgeRequested(frozenset({"succeeded"}), 15.0), 30.0)
    assert [task.task_id for effect in of_type(effects, out.TasksForgotten) for task in effect.tasks] == ["a"]
    assert list(engine.tasks) == ["b"]


def after_a_short_task(slot_count: int = 1) -> Engine:
    """An engine that knows that tasks are short, so that the first runner is handed some ahead."""
    engine = Engine(slot_count)
    submit(engine, "short", isolation="worker")
    end(engine, 1, "short")
    return engine


def test_a_task_that_fails_while_it_is_being_cancelled_is_not_run_again() -> None:
    engine = after_a_short_task()
    submit(engine, "a", "b", isolation="worker", retries=3)
    assert of_type(engine.handle(events.EndRequested(["b"]), 1.0), out.TakeBack)
    end(engine, 1, "a")
    end(engine, 1, "b", ok=False)
    engine.handle(events.TasksTakenBack(1, 0), 1.0)
    assert engine.tasks["b"].state is State.CANCELLED


def test_a_timeout_does_not_overrule_who_cancelled_before() -> None:
    engine = after_a_short_task()
    submit(engine, "a", "b", isolation="worker", retries=3, timeout_seconds=1.0)
    engine.handle(events.EndRequested(["a"]), 1.0)
    engine.handle(events.TimePassed(), 3.0)
    engine.handle(events.TasksTakenBack(1, 1), 3.0)
    assert engine.tasks["a"].state is State.CANCELLED


def test_a_task_whose_time_was_over_before_its_process_began_it_runs_in_another() -> None:
    engine = after_a_short_task()
    submit(engine, "a", "b", isolation="worker", timeout_seconds=1.0)
    engine.handle(events.TimePassed(), 3.0)
    effects = engine.handle(events.TasksTakenBack(1, 2), 3.0)
    assert of_type(effects, out.KillRunner) == [out.KillRunner(1, is_graceful=False)]
    assert started(engine.handle(events.RunnerExited(1, -9), 3.0)) == [["a"], ["b"]]
    assert engine.tasks["a"].attempt == 1


def test_a_task_that_gave_up_its_wait_and_failed_wants_no_slot_any_more() -> None:
    engine = after_a_short_task(2)
    submit(engine, "parent", isolation="worker", retries=1, backoff_seconds=0.0)
    submit(engine, "other")
    submit(engine, "child", due_at=1e9)
    engine.handle(events.WaitBegan("parent", -1, 1, ["child"]), 1.0)
    submit(engine, "third", "fourth", isolation="worker")
    runner_id = engine.tasks["third"].runner_id or 0
    engine.handle(events.WaitEnded("parent", -1, 1), 1.0)
    end(engine, 1, "parent", ok=False)
    engine.handle(events.TimePassed(), 1.0)  # its second attempt goes into the inbox of a runner that has a slot
    end(engine, runner_id, "third")
    end(engine, runner_id, "fourth")
    assert engine.tasks["parent"].state is State.RUNNING
    end(engine, 2, "other")
    assert validate(engine) == []


def test_a_wait_for_any_of_the_same_task_twice_is_not_over_at_once() -> None:
    engine = Engine(1)
    submit(engine, "parent")
    submit(engine, "child", parent_id="parent")
    effects = engine.handle(events.WaitBegan("parent", -1, 1, ["child", "child"], "any"), 1.0)
    assert of_type(effects, out.ReleaseWait) == []


@pytest.mark.parametrize("due_at", [1e9, None])
def test_what_was_cancelled_before_its_turn_is_not_kept_until_then(due_at: float | None) -> None:
    engine = Engine(1, retention_capacity=0)
    submit(engine, "running")
    submit(engine, "before them all", priority=1)
    gc.collect()  # other tests had tasks, too
    for number in range(5000):
        submit(engine, f"t{number}", due_at=due_at)
        engine.handle(events.EndRequested([f"t{number}"]), 1.0)
    records = [item for item in gc.get_objects() if isinstance(item, TaskRecord) and item.task_id.startswith("t")]
    assert len(records) < 2500


def test_priorities_that_were_are_not_kept() -> None:
    engine = Engine(1, retention_capacity=0)
    tracemalloc.start()
    try:
        for number in range(5_000):
            submit(engine, "a", priority=number)
            end(engine, number + 1, "a")
            engine.handle(events.RunnerExited(number + 1, 0), 1.0)
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


def _three_handed_over(**options: Any) -> Engine:
    engine = Engine(1)
    submit(engine, "first", "a", "b", "c", isolation="worker", **options)
    end(engine, 1, "first", now=1.0)
    assert [task.task_id for task in engine.dispatcher.runners[1].inbox] == ["a", "b", "c"]
    return engine


def test_tasks_that_are_heard_of_together_have_begun_and_ended_each() -> None:
    engine = _three_handed_over(retries=1)
    endings = [TaskEnded(task_id=name, is_successful=name != "b", elapsed_seconds=0.01) for name in "ab"]
    engine.handle(events.TasksEnded(1, endings), 2.0)
    assert validate(engine) == []
    states = {name: (task.state, task.attempt) for name, task in engine.tasks.items()}
    assert states["a"] == (State.SUCCEEDED, 1)
    assert states["b"] == (State.RETRYING, 1)
    assert states["c"] == (State.RUNNING, 1)


@pytest.mark.parametrize("crash_retries", [0, 1])
def test_of_a_process_that_went_on_unheard_all_that_it_began_has_crashed(crash_retries: int) -> None:
    engine = _three_handed_over(crash_retries=crash_retries)
    engine.handle(events.RunnerExited(1, -9, unclaimed=1), 2.0)
    tasks = engine.tasks
    for name in "ab":
        assert tasks[name].attempt == 1 and tasks[name].exit_status == -9
        assert tasks[name].state is (State.RETRYING if crash_retries else State.FAILED)
    assert tasks["c"].state in (State.READY, State.RUNNING) and tasks["c"].exit_status is None
    assert validate(engine) == []
