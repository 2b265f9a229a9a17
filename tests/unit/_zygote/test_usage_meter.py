"""A meter tells how much memory there was at most, and what children used since the last look."""

from __future__ import annotations

import os
import time

from palpable._zygote.usage_meter import UsageMeter


def end_a_child_that_works(seconds: float) -> None:
    pid = os.fork()
    if pid == 0:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_look_tells_of_the_children_that_ended_since_the_last_one() -> None:
    meter = UsageMeter()
    assert meter.peak_bytes > 1 << 20
    end_a_child_that_works(0.03)
    assert 0.025 < meter.look() < 1.0
    assert meter.look() == 0.0


def test_the_peak_is_noted_when_it_is_looked_at() -> None:
    meter = UsageMeter()
    before = meter.peak_bytes
    held = bytearray(before + (1 << 20))  # more than there ever was, with what is held besides
    held[::4096] = b"1" * len(held[::4096])
    assert meter.peak_bytes == before
    meter.look()
    assert meter.peak_bytes > before
