"""Clocks: throughput of batches that grow until they are long enough, and percentiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter, sleep


def per_second(
    run: Callable[[int], object], seconds: float, first_count: int = 8, limit: int = 200_000
) -> tuple[float, int]:
    """Return how many tasks `run(count)` does per second, and the count of the batch this was measured on.

    Batches grow until one takes two thirds of `seconds`; only the last counts, so the earlier ones are the warm-up.
    """
    count = first_count
    while True:
        started = perf_counter()
        run(count)
        elapsed = perf_counter() - started
        if elapsed >= seconds * 2 / 3 or count >= limit:
            return count / elapsed, count
        # By a factor of ten at most: the first batches also pay for starting processes, and say little about the rate.
        wanted = count * seconds / max(elapsed, 1e-6)
        count = min(limit, max(count * 2, min(count * 10, int(wanted))))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def call_seconds(call: Callable[[], object], calls: int, seconds: float, pause_seconds: float = 0.0) -> list[float]:
    """Return the durations of calls made one after the other: `calls` of them, or fewer if `seconds` are over.

    Args:
        pause_seconds: slept after each call.
    """
    durations: list[float] = []
    started = perf_counter()
    while len(durations) < calls:
        before = perf_counter()
        call()
        after = perf_counter()
        durations.append(after - before)
        if after - started > seconds and len(durations) >= 3:
            break
        if pause_seconds:
            sleep(pause_seconds)
    return durations
