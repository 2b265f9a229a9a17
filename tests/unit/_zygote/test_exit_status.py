"""Exit statuses in words."""

from __future__ import annotations

import signal

import pytest

from palpable._zygote.exit_status import describe_exit, name_signal


@pytest.mark.parametrize(
    ("exit_status", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (None, "ended in an unknown way"),
    ],
)
def test_an_exit_status_is_described(exit_status: int | None, words: str) -> None:
    assert describe_exit(exit_status) == words


def test_signals_without_a_name_have_their_number() -> None:
    assert name_signal(signal.SIGRTMIN + 3) == "SIGRTMIN+3"
    assert name_signal(99) == "signal 99"
