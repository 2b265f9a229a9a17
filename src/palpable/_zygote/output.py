"""`sys.stdout` and `sys.stderr` of task processes.

Runs in: made in the zygote, once; at work in task processes.

They write to file descriptors 1 and 2, which are the spool file there. Each line is written at once, so that a task can
be followed, in UTF-8; what is no character is written as its escape. Writing never fails: what a full disk does not
take is lost, and the task goes on.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

_stdout: Any = sys.stdout
_stderr: Any = sys.stderr


class _NeverFails(io.FileIO):
    """A file to which writing always succeeds, as far as the writer can tell."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except (OSError, ValueError):  # the disk is full, the task closed the descriptor
            return len(data)


def make_stream(fd: int, name: str) -> io.TextIOWrapper:
    """Return a text stream that writes to `fd` and does not own it."""
    raw = _NeverFails(fd, "w", closefd=False)
    raw.name = name
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True
    )


def install() -> None:
    """Make both anew in this process."""
    global _stdout, _stderr
    _stdout = sys.stdout = sys.__stdout__ = make_stream(1, "<stdout>")  # type: ignore[misc]
    _stderr = sys.stderr = sys.__stderr__ = make_stream(2, "<stderr>")  # type: ignore[misc]


def flush() -> None:
    """Write what is left, also in streams that user code put in their place. Never raises."""
    try:
        _stdout.flush()
        _stderr.flush()
        if sys.stdout is not _stdout:
            sys.stdout.flush()
        if sys.stderr is not _stderr:
            sys.stderr.flush()
    except BaseException:  # the stream may be closed, or the user's, and then it may raise anything
        return


def say(level: str, text: str) -> None:
    """Write a message that the task sent through its messenger, in order with what it prints. Never raises."""
    try:
        _stdout.write(text if level == "PRINT" else f"{level}: {text}\n")
    except BaseException:  # the task closed the stream
        return


def end() -> int:
    """Return how long the spool file is; 0 if the task closed it."""
    try:
        return os.lseek(1, 0, os.SEEK_END)  # moves nothing: the file is open for appending
    except OSError:
        return 0


def report(text: str) -> None:
    """Say something about the task where its owner will look: in its output. Never raises."""
    try:
        os.write(2, f"palpable: {text}\n".encode())
    except OSError:
        return
