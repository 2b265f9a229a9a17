"""Signals that end a command, as exceptions: what it holds is let go of on the way out."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALLED = 128
"""Plus the number of the signal: the exit code, as a shell has it."""
NUDGE = signal.SIGURG
"""Ignored by who does not handle it, so that one that comes late does no harm."""
NUDGES_AFTER_SECONDS = (0.05, 0.2, 1.0)
"""Each after the one before. Several, since a thread may be kept from its system call for longer than the first."""


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """Have SIGTERM, and SIGHUP of a terminal that closes, raise SystemExit; unless ignored, as by `nohup`.

    These and Ctrl-C are heard at any moment.
    """

    def leave(number: int, frame: object) -> None:
        raise SystemExit(SIGNALLED + number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        with _nudging():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _nudging() -> Iterator[None]:
    """Wake the main thread up again after each signal.

    Python calls handlers in the main thread, between two instructions. A signal that comes after the last look for
    one, and before the system call in which that thread then sleeps, does not wake it: nothing happens until there is
    another. On a busy machine that was one Ctrl-C of a hundred. A thread hears of each by the wakeup descriptor.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    main_thread, is_over = threading.get_ident(), threading.Event()

    def nudge() -> None:
        while numbers := os.read(reader, 64):
            if numbers.strip(bytes([NUDGE])):
                for seconds in NUDGES_AFTER_SECONDS:
                    if not is_over.wait(seconds):
                        signal.pthread_kill(main_thread, NUDGE)
        os.close(reader)

    handler = signal.signal(NUDGE, lambda number, frame: None)
    descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=nudge, name="palpable-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(descriptor)
        os.close(writer)
        thread.join()
        signal.signal(NUDGE, handler)
