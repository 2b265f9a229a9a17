"""How tasks ended, as exit codes, in a line for people, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from palpable._cli.ending import FAILED, NOT_ASKED

if TYPE_CHECKING:
    from palpable._wire.messages import Report

CRASHED: Final = 3
CANCELLED: Final = 4
NOT_RUN: Final = 5
NOT_ENDED: Final = 6
TIMED_OUT: Final = 124

EXIT_CODES: Final = {
    "succeeded": 0,
    "error": FAILED,
    "crashed": CRASHED,
    "cancelled": CANCELLED,
    "quit": NOT_RUN,
    "lost": NOT_RUN,
    "rejected": NOT_RUN,
    "timeout": TIMED_OUT,  # as of the command `timeout`
    "": NOT_ENDED,
}
"""By outcome; "" is a task that has not ended in the time one was ready to wait."""


def exit_code_of(report: Report) -> int:
    """Return the exit code of a command that stands for this task; for a task that runs a command, the command's."""
    if report.outcome == "error" and _is_of_ours(report.error_type):
        from palpable._cli.named_function import NotStarted
        from palpable._cli.shell_command import CommandFailed

        error = error_of(report)
        if isinstance(error, CommandFailed):
            return error.exit_code
        return NOT_ASKED if isinstance(error, NotStarted) else FAILED
    return EXIT_CODES.get(report.outcome, FAILED)


def describe_end(report: Report) -> str:
    """Return in a few words how a task stands."""
    if not report.outcome:
        return f"has not ended yet, it is {report.state}"
    if report.outcome == "error":
        return f"failed: {describe_error(report.error_type, report.error_message)}"
    if report.outcome == "crashed" and report.exit_status is not None:
        from palpable._wire.failure import signal_name

        status = report.exit_status
        return f"crashed: {f'killed by {signal_name(-status)}' if status < 0 else f'exited with code {status}'}"
    return {"quit": "ended because the server stopped", "timeout": "ran longer than its timeout"}.get(
        report.outcome, report.outcome
    )


def describe_error(error_type: str, message: str) -> str:
    """Return in a line what a task raised; of our own errors, which say all there is to say, the message alone."""
    text = message if _is_of_ours(error_type) else f"{error_type}: {message}".rstrip(": ")
    return " ".join(text.split())


def traceback_of(report: Report) -> str:
    """Return the traceback, unless it would show nothing but our own code; "" if there is none."""
    return "" if _is_of_ours(report.error_type) else report.traceback.rstrip()


def say_failure(report: Report, introduction: str = "") -> None:
    """Say on stderr how a task failed: the traceback, and then a line.

    What it raised is said in the words of the report: its class may be of a module that there is only where it ran.
    """
    if report.outcome == "error":
        if traceback := traceback_of(report):
            click.echo(traceback, err=True)
        text = describe_error(report.error_type, report.error_message)
    else:
        text = " ".join(str(error_of(report)).partition("\nThe last lines it printed:")[0].split())
    click.echo(f"palpable: {introduction}{text}", err=True)


def _is_of_ours(error_type: str) -> bool:
    """Whether the error is one that says all there is to say; a traceback would show our own code."""
    return error_type.startswith("palpable._cli.")


def error_of(report: Report) -> BaseException:
    """Return what a client raises for a task that did not succeed."""
    from palpable._wire.failure import exception_of

    return exception_of(report)


# --- results ----------------------------------------------------------------------------------------------------


def result_fields(report: Report) -> dict[str, Any]:
    """Return what a successful task returned as fields for JSON.

    `result`, if it can be JSON; else `result_repr`, its repr; else `result_error`, why it can't be unpickled here.
    """
    from palpable._cli.current_folder import import_from_here
    from palpable._wire.payload import result_of
    from palpable.units.task_exceptions import PalpableError

    if report.outcome != "succeeded":
        return {}
    import_from_here()
    try:
        value = result_of(report)
    except PalpableError as error:
        return {"result_error": str(error)}
    return value_fields(value)


def value_fields(value: Any) -> dict[str, Any]:
    """Return a value as fields for JSON: `result`, if it can be JSON, encoded; else `result_repr`, its repr."""
    from palpable._cli.json_values import encode_json

    try:
        return {"result": encode_json(value)}
    except (TypeError, ValueError):
        return {"result_repr": repr_of(value)}


def report_object(report: Report) -> dict[str, Any]:
    """Return how a task ended, its result or its error included, as `--json` prints it."""
    return {
        "task_id": report.task_id,
        "state": report.state,
        "outcome": report.outcome,
        "exit_code": exit_code_of(report),
        **result_fields(report),
        "error_type": report.error_type,
        "error_message": report.error_message,
        "traceback": report.traceback,
        "attempt": report.attempt,
        "elapsed_seconds": report.elapsed_seconds,
        "cpu_seconds": report.cpu_seconds,
        "peak_memory_bytes": report.peak_memory_bytes,
        "exit_status": report.exit_status,
        "followup_task_ids": report.followup_task_ids,
    }


def repr_of(value: Any) -> str:
    """Return the repr of what a task returned. Never raises an `Exception`, whatever its class does."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__}, whose repr raised {type(error).__qualname__}>"
