"""How a command ends: with an exit code, and when it failed with one line on stderr that says what to do next.

* 0: done.
* 1: there was an answer, and it is no: an unknown task, nothing cancelled, an address in use.
* 2: there was nobody to ask, or the question was wrong: no server, not the right key, a mistake in the options.
* 130: interrupted by Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
from typing import ClassVar, TextIO

import click

from palpable.units.task_exceptions import (
    AuthenticationFailed,
    PalpableError,
    ServerDraining,
    ServerUnreachable,
    UnknownTask,
    VersionMismatch,
)

FAILED = 1
NOT_ASKED = 2
INTERRUPTED = 130

COMPLETE_VARIABLE = "_PALPABLE_COMPLETE"
"""Where the shell says what it wants completed; also when Python was called with `-m palpable`."""


class Failure(click.ClickException):
    """An expected failure: what happened, and what to do next, in one line."""

    exit_code: ClassVar[int] = FAILED


class NotAsked(Failure):
    """A failure before the server could be asked."""

    exit_code: ClassVar[int] = NOT_ASKED


def run(group: click.Group, args: list[str] | None = None) -> int:
    """Run the command line; return the exit code. What a command returns is its exit code; None is 0.

    Args:
        args: None: those of this process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a task may print, or be named, what this terminal can't show
    try:
        code = group.main(args, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that went away can still be dealt with
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "palpable"
        return _say(f"{path}: {error.format_message().rstrip('.')}. See `{path} --help`.", NOT_ASKED)
    except click.ClickException as error:
        return _say(f"palpable: {error.format_message()}", error.exit_code)
    except PalpableError as error:
        if isinstance(error, UnknownTask):
            return _say(f"palpable: {error}. See `palpable tasks`.", FAILED)
        if isinstance(error, ServerDraining):
            return _say(f"palpable: {error}. If it is not about to stop, `palpable drain --off` lets it go on.", FAILED)
        is_unasked = isinstance(error, ServerUnreachable | AuthenticationFailed | VersionMismatch)
        return _say(f"palpable: {without_next_call(error)}", NOT_ASKED if is_unasked else FAILED)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        discard_output()  # the reader, `head` perhaps, has seen enough
        return FAILED
    except UnicodeEncodeError as error:  # arguments may be any bytes, and the server takes texts
        return _say(f"palpable: {error.object!r} is no text in UTF-8; nothing here has such an id or name", NOT_ASKED)
    except OSError as error:
        discard_output()
        return _say(f"palpable: {error}", FAILED)
    return code if isinstance(code, int) else 0


def discard_output() -> None:
    """Have what is still to be written to stdout vanish: Python would complain of it at its end."""
    _discard(sys.stdout)


def _discard(stream: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def without_next_call(error: PalpableError) -> str:
    """Return what an error says, less what it says of the next call of a program: the command ends with it."""
    from palpable._connection.broken import NEXT_CALL

    return str(error).removesuffix(NEXT_CALL)


def say_at_end(message: str) -> None:
    """Say a line on stderr, though the command may end because its terminal has closed; then nobody hears it."""
    try:
        click.echo(message, err=True)
    except OSError:
        _discard(sys.stderr)


def _say(message: str, exit_code: int) -> int:
    click.echo(" ".join(line.strip() for line in message.splitlines()), err=True)
    return exit_code
