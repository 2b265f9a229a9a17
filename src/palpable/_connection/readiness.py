"""Waiting until a socket can be read or written."""

from __future__ import annotations

import math
import select
from collections.abc import Iterable
from typing import Protocol


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int: ...


def wait_until_ready(
    readable: Iterable[HasFileno], writable: Iterable[HasFileno] = (), timeout_seconds: float | None = None
) -> set[int]:
    """Return the file descriptors that are ready (or broken), after `timeout_seconds` at most.

    Raises:
        OSError, ValueError: one of them is closed.
    """
    if not hasattr(select, "poll"):  # Windows
        seconds = None if timeout_seconds is None else max(0.0, timeout_seconds)
        ready = select.select(list(readable), list(writable), [], seconds)
        return {one.fileno() for one in [*ready[0], *ready[1]]}
    interests: dict[int, int] = {}
    for one in readable:
        interests[one.fileno()] = interests.get(one.fileno(), 0) | select.POLLIN
    for one in writable:
        interests[one.fileno()] = interests.get(one.fileno(), 0) | select.POLLOUT
    poll = select.poll()
    for fd, interest in interests.items():
        poll.register(fd, interest)  # a closed socket has -1, which is a ValueError here
    # Rounded up, or the last millisecond would be spent in a busy loop; poll takes 31 bits.
    milliseconds = None if timeout_seconds is None else math.ceil(min(max(0.0, timeout_seconds * 1000), 2**31 - 1))
    return {fd for fd, _ in poll.poll(milliseconds)}
