"""What a caller raises for a task that did not succeed: from the server's report to an exception.

Runs in: clients, and task processes that wait for sub-tasks.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from palpable._wire.chunk_failure import error_in
from palpable.units import task_exceptions
from palpable.units.task_exceptions import RemoteTaskError, RemoteTraceback

if TYPE_CHECKING:
    from palpable._wire.messages import Report


def exception_of(report: Report) -> BaseException:
    """Return the exception for a task that ended without success. Never raises.

    Its own exception comes back as its own type, with the remote traceback as cause. Ends of other kinds are a
    `TaskDidNotFinish`, which carries the facts as attributes.
    """
    if report.outcome == "error":
        return _own_exception(report)
    name, describe = _DESCRIBED.get(report.outcome, ("TaskLost", _describe_lost))
    error_class = getattr(task_exceptions, name)
    error: BaseException = error_class(
        describe(report),
        task_id=report.task_id,
        exit_status=report.exit_status,
        elapsed_seconds=report.elapsed_seconds,
        cpu_seconds=report.cpu_seconds,
        peak_memory_bytes=report.peak_memory_bytes,
        output_tail=report.output_tail,
    )
    return error


def _own_exception(report: Report) -> BaseException:
    error: BaseException | None = None
    reason = ""
    payload = None if report.payload is None else error_in(report.payload)
    if payload is not None:
        try:
            loaded = pickle.loads(payload)
            if isinstance(loaded, BaseException):
                error = loaded
        except Exception as raised:  # the exception's class is the user's, and may raise anything
            reason = f" (it can't be unpickled here: {type(raised).__qualname__}: {raised})"
    if error is None or _means_something_here(error):
        error = RemoteTaskError(f"{report.error_message}{reason}", type_name=report.error_type, task_id=report.task_id)
    if report.traceback:
        with suppress(Exception):  # as above
            error.__cause__ = RemoteTraceback(report.traceback)
    return error


def _means_something_here(error: BaseException) -> bool:
    """Whether raising `error` would end, interrupt or cancel the caller, which is not what happened."""
    if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        return True
    return not isinstance(error, Exception) and type(error).__module__.partition(".")[0] == "asyncio"


# --- in words ---------------------------------------------------------------------------------------------------


def _describe_timeout(report: Report) -> str:
    return (
        f"{_task(report)} was ended: it ran longer than its timeout{_after(report, ' (it ran {})')}. "
        f"Give it more time (timeout_seconds, or the server's task_timeout_seconds), or less to do."
    ) + _tail(report)


def _describe_crash(report: Report) -> str:
    status = report.exit_status
    memory = f", peak memory {_bytes(report.peak_memory_bytes)}" if report.peak_memory_bytes else ""
    if status is None:
        what, advice = "its process died", "How is not known."
    elif status < 0:
        name = signal_name(-status)
        what, advice = f"its process was killed by {name}", _SIGNAL_ADVICE.get(name, "")
        if name == "SIGKILL" and 0 < (report.peak_memory_bytes or 0) < _SMALL_BYTES:
            advice = _KILLED_WHILE_SMALL
    else:
        what = f"its process exited with code {status}, and the task had not ended"
        advice = "Something in it called sys.exit or os._exit, or a library ended the process."
    return f"{_task(report)} crashed: {what}{_after(report, ' after {}')}{memory}. {advice}".rstrip() + _tail(report)


_SIGNAL_ADVICE = {
    "SIGKILL": (
        "Most likely the kernel ended it because memory ran out: let it hold less at a time, run fewer workers, "
        "or add memory. Otherwise somebody sent that signal."
    ),
    "SIGSEGV": "A fault in native code it runs (an extension module, ctypes), or recursion too deep for the stack.",
    "SIGBUS": "A fault in native code it runs, or a memory-mapped file that shrank, or a full /dev/shm.",
    "SIGABRT": "Native code it runs gave up (an assertion, a corrupted heap): see the lines it printed.",
    "SIGILL": "Native code it runs was built for another kind of processor.",
    "SIGFPE": "A division by zero in native code it runs.",
    "SIGXCPU": "It used up its limit of processor time.",
    "SIGTERM": "Somebody sent that signal, or the task sent it to itself.",
    "SIGPIPE": "It wrote to a pipe that nobody reads.",
}


_SMALL_BYTES = 100_000_000
"""A process that held no more is seldom the one the kernel chooses when memory runs out."""
_KILLED_WHILE_SMALL = (
    "It held little memory, so most likely it reached a limit on its processor time (RLIMIT_CPU), or somebody sent "
    "that signal. Otherwise the kernel ended it because memory ran out: run fewer workers, or add memory."
)


def _describe_cancelled(report: Report) -> str:
    return f"{_task(report)} was cancelled {_when(report)}." + _tail(report)


def _describe_quit(report: Report) -> str:
    words = f"{_task(report)} was ended {_when(report)}, because the server stopped. Submit it again to run it."
    return words + _tail(report)


def _describe_lost(report: Report) -> str:
    said = f": {report.error_message}" if report.error_message else ""
    return (
        f"{_task(report)} was lost{said}. It is not known whether it ran to its end: its server ended while it ran. "
        f"Submit it again if running it twice does no harm."
    ) + _tail(report)


def _describe_rejected(report: Report) -> str:
    said = report.error_message or "the server could not start it"
    return f"{_task(report)} was rejected: {said}"


_DESCRIBED: dict[str, tuple[str, Any]] = {
    "timeout": ("TaskTimeout", _describe_timeout),
    "crashed": ("TaskCrashed", _describe_crash),
    "cancelled": ("TaskCancelled", _describe_cancelled),
    "quit": ("TaskKilledByQuitSignal", _describe_quit),
    "lost": ("TaskLost", _describe_lost),
    "rejected": ("TaskRejected", _describe_rejected),
}


def signal_name(number: int) -> str:
    """Return "SIGSEGV" for 11; "signal 70" for one without a name."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _task(report: Report) -> str:
    return f"task {report.task_id}"


def _after(report: Report, ran: str, did_not_run: str = "") -> str:
    if report.elapsed_seconds is None:
        return did_not_run
    return ran.format(f"{report.elapsed_seconds:.3g} s")


def _when(report: Report) -> str:
    """Return when it was ended by somebody."""
    if report.attempt and report.elapsed_seconds is None:
        # Its server ended while it was handed over, at least; how far it came nobody knows.
        return "before it ran again; an attempt before this may have run"
    return _after(report, "after it ran {}", "before it ran")


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _tail(report: Report) -> str:
    text = report.output_tail.rstrip()
    return f"\nThe last lines it printed:\n{text}" if text else ""
