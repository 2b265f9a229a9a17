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
    sys.stdout = sys.__stdout__ = make_stream(1, "<stdout>")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = make_stream(2, "<stderr>")  # type: ignore[misc]


def flush() -> None:
    """Write what is left, also in streams that user code put in their place. Never raises."""
    for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
        try:
            stream.flush()  # type: ignore[union-attr]
        except BaseException:  # the stream may be the user's, closed, or None
            continue


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
