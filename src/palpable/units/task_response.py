"""How a task stands, as a dict that a web view can send as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from palpable.units.task_result import TaskResult


class TaskResponse(dict[str, Any]):
    """A dict with `task_id`, `status`, `data` and `followup_task_ids`.

    `status` is one of the four words below, and a response compares equal to its word:

        SUCCESS: `data` is what the task returned.
        ERROR:   `data` is the message text: of the task's exception, or of why the server could not be asked.
        TBD:     the task is queued or running.
        NONE:    there is no such task: unknown, expired, or its result was taken.

    Example:
        >>> response = TaskResponse("7d", TaskResponse.SUCCESS, 42)
        >>> response == TaskResponse.SUCCESS, response["data"]
        (True, 42)
    """

    SUCCESS: Final = "SUCCESS"
    ERROR: Final = "ERROR"
    TBD: Final = "TBD"
    NONE: Final = "NONE"

    def __init__(
        self, task_id: str | None, status: str, data: Any = None, followup_task_ids: Iterable[str] = ()
    ) -> None:
        super().__init__(task_id=task_id, status=status, data=data, followup_task_ids=list(followup_task_ids))

    @classmethod
    def from_result(cls, task_id: str | None, result: TaskResult | None) -> TaskResponse:
        """Return the response for what a query of `task_id` gave."""
        if result is None:
            return cls(task_id, cls.NONE)
        if result.is_successful is None:
            return cls(result.task_id, cls.TBD, None, result.followup_task_ids)
        if result.is_successful:
            return cls(result.task_id, cls.SUCCESS, result.data, result.followup_task_ids)
        return cls.from_error(result.task_id, result.data, result.followup_task_ids)

    @classmethod
    def from_error(
        cls, task_id: str | None, error: BaseException, followup_task_ids: Iterable[str] = ()
    ) -> TaskResponse:
        """Return the response for a failure. Never raises."""
        try:
            text = str(error)
        except Exception:  # the exception is the user's, and so is its __str__
            text = ""
        return cls(task_id, cls.ERROR, text or type(error).__qualname__, followup_task_ids)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return bool(self["status"] == other)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None
