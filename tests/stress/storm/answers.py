"""What a client was told, in a word.

A final answer says how the task ended; the others say that it has not, that nobody knows it, or that nobody said
anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from palpable import TaskResult
from palpable.units import task_exceptions as errors
from stress.storm.behaviours import JobFailed

FINAL = frozenset({"succeeded", "error", "timeout", "crashed", "cancelled", "lost", "rejected", "quit"})
"""As the outcomes of a task are called on the server."""
UNFINISHED, UNKNOWN, REFUSED, UNREACHABLE, SILENCE = "unfinished", "unknown", "refused", "unreachable", "silence"

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (JobFailed, "error"),
    (errors.TaskTimeout, "timeout"),
    (errors.TaskCrashed, "crashed"),
    (errors.TaskCancelled, "cancelled"),
    (errors.TaskLost, "lost"),
    (errors.TaskRejected, "rejected"),
    (errors.TaskKilledByQuitSignal, "quit"),
    (errors.UnknownTask, UNKNOWN),
    (errors.StoreFull, REFUSED),
    (errors.ServerDraining, REFUSED),
    (errors.ServerUnreachable, UNREACHABLE),
    (FutureTimeout, SILENCE),
)


def answer_of(call: Callable[[], Any]) -> tuple[str, Any]:
    """Return what `call()` says in a word, and what it returned, or the text of the error.

    Raises:
        Exception: one that no task of the storm and no fault leads to.
    """
    try:
        return "succeeded", call()
    except BaseException as error:
        return _of_error(error)


async def awaited_answer_of(said: Awaitable[Any]) -> tuple[str, Any]:
    """Return the same for what is awaited. Raises as `answer_of`."""
    try:
        return "succeeded", await said
    except BaseException as error:
        return _of_error(error)


def answer_of_result(result: TaskResult | None) -> tuple[str, Any]:
    """Return the same for a result that was asked for."""
    if result is None:
        return UNKNOWN, None
    if result.is_successful is None:
        return UNFINISHED, None
    return ("succeeded", result.data) if result.is_successful else _of_error(result.data)


def _of_error(error: BaseException) -> tuple[str, Any]:
    for kind, word in _WORDS:
        if isinstance(error, kind):
            return word, error.value if isinstance(error, JobFailed) else str(error)
    raise error
