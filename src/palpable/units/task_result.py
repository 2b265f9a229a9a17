"""How a task ended, as its caller holds it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palpable._wire.messages import Report


class TaskResult:
    """The data a task returned, or the exception it failed with.

    Attributes:
        task_id: which task.
        is_successful: True, False, or None while the task is queued or running.
        data: what it returned; the exception instance if it failed; None if it has not ended.
        followup_task_ids: the tasks it submitted as follow-ups.
        exit_status: exit code of its process, or minus the signal number; None if not known (yet).
        cpu_seconds: processor time used; None if not known.
        peak_memory_bytes: the most memory it held at one time; None if not known.
        elapsed_seconds: how long it ran; None if not known.
        attempt: which run of the task this was, from 1; None if it has not run.
    """

    def __init__(
        self,
        task_id: str,
        is_successful: bool | None,
        data: Any,
        followup_task_ids: Iterable[str] = (),
        *,
        exit_status: int | None = None,
        cpu_seconds: float | None = None,
        peak_memory_bytes: int | None = None,
        elapsed_seconds: float | None = None,
        attempt: int | None = None,
    ) -> None:
        self.task_id = task_id
        self.is_successful = is_successful
        self.data = data
        self.followup_task_ids = tuple(followup_task_ids)
        self.exit_status = exit_status
        self.cpu_seconds = cpu_seconds
        self.peak_memory_bytes = peak_memory_bytes
        self.elapsed_seconds = elapsed_seconds
        self.attempt = attempt

    @classmethod
    def from_report(cls, report: Report) -> TaskResult:
        """Return what the server reported. Never raises: data that can't be unpickled here is a failure."""
        from palpable._wire.payload import exception_of, result_of
        from palpable.units.task_exceptions import PalpableError

        is_successful: bool | None = None
        data: Any = None
        if report.outcome == "succeeded":
            try:
                data, is_successful = result_of(report), True
            except PalpableError as error:
                data, is_successful = error, False
        elif report.outcome:
            data, is_successful = exception_of(report), False
        return cls(
            report.task_id,
            is_successful,
            data,
            report.followup_task_ids,
            exit_status=report.exit_status,
            cpu_seconds=report.cpu_seconds,
            peak_memory_bytes=report.peak_memory_bytes,
            elapsed_seconds=report.elapsed_seconds,
            attempt=report.attempt or None,
        )

    def __repr__(self) -> str:
        word = {True: "successful", False: "failed", None: "not ended"}[self.is_successful]
        return f"<TaskResult {self.task_id} {word}>"
