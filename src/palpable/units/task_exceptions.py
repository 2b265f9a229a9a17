"""The errors of Palpable: one root, names that say what happened, facts as attributes.

Every class can be made with a message alone; every instance survives pickling with its attributes, its cause and
its notes. Imports nothing of Palpable, so every module may import it, and nothing slow: the two classes that are also
errors of `concurrent.futures` are made when they are first asked for (the modules of their bases take 15 and 50 ms).
"""

from __future__ import annotations

from pickle import PicklingError, UnpicklingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import CancelledError
    from concurrent.futures.process import BrokenProcessPool
    from typing import Any


class PalpableError(Exception):
    """The root of every error that Palpable itself raises. Takes what any exception takes."""

    def __init__(self, message: object = "", *details: object) -> None:
        super().__init__(message, *details)

    def __str__(self) -> str:
        # Not each base's own idea of it: LookupError's children and OSError have different ones.
        return str(self.args[0] if len(self.args) == 1 else self.args or "")

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException.__setstate__ sets every item as an attribute, so the cause can travel with the others.
        state = dict(self.__dict__)
        if self.__cause__ is not None:
            state["__cause__"] = self.__cause__
        return (_remade, (type(self), self.args), state)


def _remade(error_class: type[PalpableError], args: tuple[object, ...]) -> PalpableError:
    """Return an instance without calling `__init__`, which a subclass may have given other parameters."""
    error = error_class.__new__(error_class, *args)
    error.args = args
    return error


class RemoteTraceback(Exception):
    """The traceback of an error in a task's process, as text: the cause of the error that the caller sees."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)

    @property
    def text(self) -> str:
        """The traceback as it was in the task's process."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


# --- how a task ended -------------------------------------------------------------------------------------------


class TaskFailed(PalpableError):
    """An expected failure: a task raises it itself, with the reason.

    Example:
        >>> def run(self, messenger):
        ...     raise TaskFailed("the input has no rows")
    """


class TaskDidNotFinish(PalpableError):
    """A task neither returned nor raised; the subclass says why not.

    Attributes:
        task_id: which task; "" if not known.
        exit_status: exit code of its process; minus the signal number if a signal ended it; None if not known.
        elapsed_seconds: how long the attempt ran; None if it did not.
        cpu_seconds: processor time used; None if not known.
        peak_memory_bytes: the most memory it held at one time; None if not known.
        output_tail: the last lines it printed.
    """

    def __init__(
        self,
        message: object = "",
        *details: object,
        task_id: str = "",
        exit_status: int | None = None,
        elapsed_seconds: float | None = None,
        cpu_seconds: float | None = None,
        peak_memory_bytes: int | None = None,
        output_tail: str = "",
    ) -> None:
        super().__init__(message, *details)
        self.task_id = task_id
        self.exit_status = exit_status
        self.elapsed_seconds = elapsed_seconds
        self.cpu_seconds = cpu_seconds
        self.peak_memory_bytes = peak_memory_bytes
        self.output_tail = output_tail


class TaskTimeout(TaskDidNotFinish):
    """The task ran longer than its timeout, and its process was ended."""


class TaskKilledByQuitSignal(TaskDidNotFinish):
    """The server stopped while the task ran or waited to run."""


class TaskKilledByMonitoringError(TaskDidNotFinish):
    """The task was ended because the server could no longer watch its process.

    Nothing raises it any more: such a task ends with `TaskLost`. It is kept for programs of 0.0.11 that catch it.
    """


class TaskLost(TaskDidNotFinish):
    """It is not known how the task ended, or whether: its server ended while it ran, or knows it no more."""


class TaskRejected(TaskDidNotFinish):
    """The task was accepted, and then could not be started."""


class RemoteTaskError(PalpableError):
    """A task raised an exception that could not travel: it can't be pickled, or can't be unpickled here.

    Attributes:
        type_name: the qualified name of the exception's class.
        message: its text.
        task_id: which task; "" if not known.
    """

    def __init__(self, message: str = "", *, type_name: str = "", task_id: str = "") -> None:
        super().__init__(": ".join(filter(None, (type_name, message))))
        self.type_name = type_name
        self.message = message
        self.task_id = task_id


# --- between client and server ----------------------------------------------------------------------------------


class ServerUnreachable(PalpableError, ConnectionError):
    """No server answers at the address, or the connection to it broke.

    Attributes:
        address: where the server was looked for; "" if not known.
    """

    def __init__(self, message: str = "", *, address: str = "") -> None:
        super().__init__(message)  # no more: OSError takes a second and a third argument for something else
        self.address = address


class AuthenticationFailed(PalpableError):
    """Client and server do not hold the same authkey."""


class VersionMismatch(PalpableError):
    """Client and server are of versions that do not understand each other."""


class ServerError(PalpableError):
    """The server refused a request, and no other class says why."""


class ServerDraining(ServerError):
    """The server finishes what runs, and accepts nothing new: it is about to stop, or was told to pause."""


class StoreFull(ServerError):
    """The disk that holds the server's store is full. Nothing new is accepted until there is room."""


class ServerStartError(PalpableError):
    """The server could not be started."""


class UnknownTask(PalpableError, LookupError):
    """The server knows no such task: it never did, or the result expired or was taken.

    Attributes:
        task_id: which task; "" if not known.
    """

    def __init__(self, message: object = "", *details: object, task_id: str = "") -> None:
        super().__init__(message, *details)
        self.task_id = task_id


class WaitCycle(PalpableError):
    """A task was to wait for itself, or for a task that waits for it."""


# --- payloads ---------------------------------------------------------------------------------------------------


class PayloadTooLarge(PalpableError):
    """A function, its arguments or a result take more bytes than the server accepts.

    Attributes:
        size_bytes: how many they take; None if not known.
        limit_bytes: how many are accepted; None if not known.
    """

    def __init__(
        self, message: object = "", *details: object, size_bytes: int | None = None, limit_bytes: int | None = None
    ) -> None:
        super().__init__(message, *details)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class NotPicklable(PalpableError, PicklingError):
    """A function, argument or result can't be turned into bytes."""


class NotUnpicklable(PalpableError, UnpicklingError):
    """Bytes that arrived can't be turned back into the object: most often, a module is not installed here."""


# --- made when first asked for ----------------------------------------------------------------------------------

_TASK_CRASHED = "The task's process died: killed by a signal, out of memory, or by `os._exit`."
_TASK_CANCELLED = "The task was cancelled, before or while it ran."

if TYPE_CHECKING:

    class TaskCrashed(TaskDidNotFinish, BrokenProcessPool):
        __doc__ = _TASK_CRASHED

    class TaskCancelled(TaskDidNotFinish, CancelledError):
        __doc__ = _TASK_CANCELLED


_DEFERRED = {
    "TaskCrashed": ("concurrent.futures.process", "BrokenProcessPool", _TASK_CRASHED),
    "TaskCancelled": ("concurrent.futures", "CancelledError", _TASK_CANCELLED),
}


def __getattr__(name: str) -> Any:
    if name not in _DEFERRED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module_name, base_name, doc = _DEFERRED[name]
    base = getattr(import_module(module_name), base_name)
    made = type(name, (TaskDidNotFinish, base), {"__module__": __name__, "__doc__": doc})
    # Two threads may come here at once. Both get the one class that was entered first.
    return globals().setdefault(name, made)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "AuthenticationFailed",
    "NotPicklable",
    "NotUnpicklable",
    "PalpableError",
    "PayloadTooLarge",
    "RemoteTaskError",
    "RemoteTraceback",
    "ServerDraining",
    "ServerError",
    "ServerStartError",
    "ServerUnreachable",
    "StoreFull",
    "TaskCancelled",
    "TaskCrashed",
    "TaskDidNotFinish",
    "TaskFailed",
    "TaskKilledByMonitoringError",
    "TaskKilledByQuitSignal",
    "TaskLost",
    "TaskRejected",
    "TaskTimeout",
    "UnknownTask",
    "VersionMismatch",
    "WaitCycle",
]


def error_named(name: str, message: str) -> Exception:
    """Return the error a peer named in a refusal; `ServerError` for a name that is not known here.

    Args:
        name: a class of this module, or "ValueError".
        message: its text.
    """
    if name == "ValueError":
        return ValueError(message)
    if name in __all__ and name != "RemoteTraceback":
        from sys import modules

        error: Exception = getattr(modules[__name__], name)(message)
        return error
    return ServerError(f"{name}: {message}")
