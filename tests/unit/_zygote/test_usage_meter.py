"""A meter tells what each task used, and no task pays for another."""

from __future__ import annotations

import time

from palpable._zygote.usage_meter import GAP_SECONDS, UsageMeter


def work(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_task_is_charged_with_its_own_time() -> None:
    meter = UsageMeter()
    meter.begin()
    began = time.monotonic()
    work(0.02)
    took_seconds = time.monotonic() - began  # less than 0.02 where another thread of the process worked too
    elapsed_seconds, cpu_seconds, peak_bytes = meter.end()
    assert elapsed_seconds >= took_seconds * 0.99 and cpu_seconds >= 0.02
    assert peak_bytes > 1 << 20
    meter.begin()
    _, cpu_seconds, _ = meter.end()
    assert cpu_seconds < 0.015


def test_what_runs_between_two_tasks_is_charged_to_none() -> None:
    meter = UsageMeter()
    meter.begin()
    meter.end()
    work(GAP_SECONDS + 0.03)
    meter.begin()
    _, cpu_seconds, _ = meter.end()
    assert cpu_seconds < 0.025
