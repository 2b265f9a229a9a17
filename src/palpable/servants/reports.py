"""What clients are told of a task, made from its record."""

from __future__ import annotations

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import SUCCEEDED, Outcome
from palpable._store.store import StoredResult
from palpable._wire.messages import TaskEnded, TaskInfo, TaskReport, TaskReturned


def report_of(task: TaskRecord, output_tail: str = "", stored: StoredResult | None = None) -> TaskReport:
    """Return the report of a task, its result included.

    Args:
        stored: its result, if it is not in the record.
    """
    ending: TaskEnded | TaskReturned | StoredResult | None = None
    outcome = task.outcome
    if outcome is SUCCEEDED or outcome is Outcome.ERROR:
        ending = task.ending or stored
    return TaskReport(
        task.task_id,
        task.state,
        outcome,
        ending.payload if ending is not None else None,
        task.error_type,
        task.error_message,
        ending.traceback if ending is not None else "",
        tuple(task.followup_ids) if task.followup_ids else (),
        task.attempt,
        elapsed_seconds(task),
        task.cpu_seconds,
        task.peak_memory_bytes,
        task.exit_status,
        output_tail,
    )


def info_of(task: TaskRecord, *, utc_offset: float, now: float, worker: str = "", pid: int | None = None) -> TaskInfo:
    """Return the line of a task in lists.

    Args:
        utc_offset: what is added to monotonic seconds to get UTC seconds since the epoch.
        now: monotonic seconds.
    """
    elapsed, policy = elapsed_seconds(task), task.policy
    return TaskInfo(
        task_id=task.task_id,
        name=task.name,
        state=task.state,
        outcome=task.outcome,
        isolation=task.isolation,  # type: ignore[arg-type]
        priority=policy.priority,
        depth=task.depth,
        parent_id=task.parent_id,
        is_waiting=bool(task.waits),
        attempt=task.attempt,
        submitted_at=task.submitted_at + utc_offset,
        started_at=None if task.started_at is None else task.started_at + utc_offset,
        finished_at=None if task.finished_at is None else task.finished_at + utc_offset,
        elapsed_seconds=elapsed if elapsed is not None or task.started_at is None else now - task.started_at,
        cpu_seconds=task.cpu_seconds,
        peak_memory_bytes=task.peak_memory_bytes,
        exit_status=task.exit_status,
        error_type=task.error_type,
        error_message=task.error_message,
        worker=worker,
        pid=pid,
        progress=task.progress,
        sequence=task.sequence,
        due_at=None if task.due_at is None else task.due_at + utc_offset,
        timeout_seconds=policy.timeout_seconds,
        retries=policy.retries,
        backoff_seconds=policy.backoff_seconds,
        max_backoff_seconds=policy.max_backoff_seconds,
        retry_on=policy.retry_on,
        crash_retries=policy.crash_retries,
        at_most_once=policy.at_most_once,
        idempotency_key=policy.idempotency_key,
        tags=policy.tags,
        is_taken=task.is_taken,
        followup_task_ids=tuple(task.followup_ids or ()),
    )


def elapsed_seconds(task: TaskRecord) -> float | None:
    """Return how long the attempt took; None if it did not begin, or has not ended."""
    if task.started_at is None or task.finished_at is None:
        return None
    return task.finished_at - task.started_at
