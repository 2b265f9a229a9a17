"""What clients are told of a task, made from its record."""

from __future__ import annotations

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome
from palpable._wire.messages import TaskEnded, TaskInfo, TaskReport


def report_of(task: TaskRecord, output_tail: str = "") -> TaskReport:
    """Return the report of a task, its result included."""
    ending: TaskEnded | None = task.ending if task.outcome in (Outcome.SUCCEEDED, Outcome.ERROR) else None
    return TaskReport(
        task.task_id,
        task.state,
        task.outcome,
        ending.payload if ending is not None else None,
        task.error_type,
        task.error_message,
        ending.traceback if ending is not None else "",
        tuple(task.followup_ids or ()),
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
    elapsed = elapsed_seconds(task)
    return TaskInfo(
        task_id=task.task_id,
        name=task.name,
        state=task.state,
        outcome=task.outcome,
        isolation=task.isolation,  # type: ignore[arg-type]
        priority=task.priority,
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
    )


def elapsed_seconds(task: TaskRecord) -> float | None:
    """Return how long the attempt took; None if it did not begin, or has not ended."""
    if task.started_at is None or task.finished_at is None:
        return None
    return task.finished_at - task.started_at
