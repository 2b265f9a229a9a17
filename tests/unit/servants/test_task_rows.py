"""Tasks as rows of a store, and back."""

from __future__ import annotations

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._wire.messages import TaskRequest
from palpable.servants.task_rows import TaskRows


def _task(**facts: object) -> TaskRecord:
    policy = TaskPolicy(isolation="worker", retries=3, tags=("a", "b"), timeout_seconds=5.0)
    request = TaskRequest("t", "call", "key", b"payload", "f")
    return TaskRecord(
        task_id="t",
        request=request,
        name="f",
        function_key="key",
        policy=policy,
        isolation="worker",
        sequence=7,
        submitted_at=10.0,
        **facts,  # type: ignore[arg-type]
    )


def test_a_task_comes_back_as_it_was() -> None:
    task = _task(state=State.RETRYING, attempt=2, errors=2, due_at=30.0, error_type="E", followup_ids=["x"], depth=1)
    before, after = TaskRows(1_000_000.0, 1), TaskRows(1_000_005.0, 2)
    again = after.record_of(before.row_of(task), before.state_of(task), now=1_000.0)
    assert (again.policy, again.state, again.attempt, again.errors) == (task.policy, State.RETRYING, 2, 2)
    assert (again.submitted_at, again.due_at) == (5.0, 25.0), "the monotonic clock of this start is another one"
    assert (again.followup_ids, again.error_type, again.depth) == (["x"], "E", 1)
    assert again.is_on_disk and again.request.payload == b""


def test_what_was_handed_over_ahead_may_have_begun() -> None:
    task = _task(state=State.READY, attempt=0, runner_id=5)
    state = TaskRows(0.0, 1).state_of(task)
    assert (state.state, state.attempt) == ("running", 1)


def test_after_a_clock_was_set_back_what_has_happened_is_still_past() -> None:
    task = _task(state=State.FAILED, outcome=Outcome.ERROR, started_at=20.0, finished_at=21.0)
    rows = TaskRows(1_000_000.0, 1)
    # An hour was taken off the wall clock between the two starts.
    again = TaskRows(1_000_000.0 - 3600.0, 2).record_of(rows.row_of(task), rows.state_of(task), now=60.0)
    assert again.finished_at is not None and again.finished_at <= 60.0
    assert again.submitted_at <= 60.0


def test_a_policy_is_made_once_for_all_tasks_that_have_it() -> None:
    rows = TaskRows(0.0, 1)
    row, state = rows.row_of(_task()), rows.state_of(_task())
    assert rows.record_of(row, state, 0.0).policy is rows.record_of(row, state, 0.0).policy
