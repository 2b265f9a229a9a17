"""Signals that end a command, as exceptions: what it holds is let go of on the way out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALLED = 128
"""Plus the number of the signal: the exit code, as a shell has it."""


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """Have SIGTERM, and SIGHUP of a terminal that closes, raise SystemExit; unless ignored, as by `nohup`."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(SIGNALLED + number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
