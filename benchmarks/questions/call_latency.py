"""How long does one call take, there and back?"""

from __future__ import annotations

from typing import Any

from benchmarks.contender import Contender
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.timing import call_seconds, percentile

PAUSE_SECONDS = 0.01
"""Between calls that come now and then: enough for every contender to come to rest, and for cores to fall asleep."""


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    function = contender.function("increment")

    def call() -> None:
        assert contender.call(function, 1) == 2, "wrong result"

    call_seconds(call, settings.calls // 10, settings.seconds / 4)
    durations = call_seconds(call, settings.calls, settings.seconds)
    rare = call_seconds(call, settings.calls // 5, settings.seconds, PAUSE_SECONDS)
    return {
        "p50_rare_ms": percentile(rare, 50) * 1000,
        "p50_ms": percentile(durations, 50) * 1000,
        "p99_ms": percentile(durations, 99) * 1000,
        "count": len(durations),
    }


QUESTION = Question(
    name="call_latency",
    title="Latency of one call",
    text=(
        "`x + 1`, called again and again by one thread, which waits for each result before it makes the next call; a "
        "tenth as many calls come first as a warm-up. With few calls (see `count`) the p99 is the slowest of them. "
        "Rare: a fifth as many calls with a pause of 10 ms after each, as they come to a server that has little to do."
    ),
    metrics=(Metric("p50_ms", "p50, ms", 3), Metric("p99_ms", "p99, ms", 3), Metric("p50_rare_ms", "rare, p50, ms", 3)),
    bars=(
        Bar("p50, task mode / Pool.apply", "p50_ms", "palpable-task", "pool", at_most=1.5),
        Bar("p50, worker mode / Pool.apply", "p50_ms", "palpable-worker", "pool", at_most=0.8),
    ),
    measure=measure,
)
