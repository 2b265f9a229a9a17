"""A command is ended by signals, at whatever moment they come."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from palpable._cli.signals import SIGNALLED, ending_by_exception


def test_sigterm_ends_a_command_with_the_exit_code_of_a_shell() -> None:
    with pytest.raises(SystemExit) as ended, ending_by_exception():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10)
    assert ended.value.code == SIGNALLED + signal.SIGTERM


def test_a_signal_that_did_not_wake_the_main_thread_is_heard_all_the_same() -> None:
    def come_before_the_sleep() -> None:
        # To this thread, which does not call handlers: as one that came before the main thread fell asleep.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), ending_by_exception():
            reader, writer = os.pipe()
            try:
                threading.Timer(0.2, come_before_the_sleep).start()
                os.read(reader, 1)
            finally:
                os.close(reader)
                os.close(writer)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 5


def test_everything_is_as_it_was_afterwards() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGURG)
    before = [signal.getsignal(number) for number in numbers]
    with ending_by_exception():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
