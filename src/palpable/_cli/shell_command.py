"""A command as a task: its output is the task's output, its exit code decides how the task ends.

Runs in: the task process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from palpable._cli.named_function import NotStarted
from palpable.units.task_exceptions import TaskFailed

NOT_FOUND = 127
NOT_EXECUTABLE = 126
SIGNALLED = 128
"""What a shell returns for a command that is not there, that can't be run, or (plus its number) that a signal ended."""


class CommandFailed(TaskFailed):
    """The command ended, and not with exit code 0.

    Attributes:
        exit_code: its own, or what a shell would return for it.
    """

    def __init__(self, message: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_command(command: Sequence[str], folder: str = "") -> int:
    """Run a command to its end, without a shell and without input; return 0.

    It is a child of the task's process, so it ends with the task, and with it all that it started.

    Args:
        folder: where it runs; "": where the server was started.

    Raises:
        NotStarted: there is no such folder here.
        CommandFailed: it ended with another exit code, was ended by a signal, or could not be started.
    """
    sys.stdout.flush()
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder or None)
    except OSError as error:
        if folder and not os.path.isdir(folder):
            raise NotStarted(f"it can't run in {folder}: {error.strerror}. Name another one with --folder") from None
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise CommandFailed(f"{command[0]} can't be run: {error.strerror}", exit_code=code) from None
    status = process.wait()
    if status < 0:
        from palpable._wire.failure import signal_name

        raise CommandFailed(f"{command[0]} was ended by {signal_name(-status)}", exit_code=SIGNALLED - status)
    if status:
        raise CommandFailed(f"{command[0]} ended with exit code {status}", exit_code=status)
    return 0
