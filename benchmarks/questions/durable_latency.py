"""How long does one durable call take, there and back?"""

from __future__ import annotations

from benchmarks.question import Bar, Metric, Question
from benchmarks.questions.call_latency import measure

QUESTION = Question(
    name="durable_latency",
    title="Latency of one durable call",
    text=(
        "`x + 1`, called again and again by one thread, processes reused. Each call waits for two commits with fsync: "
        "of its task, and of its result."
    ),
    metrics=(Metric("p50_ms", "p50, ms", 3), Metric("p99_ms", "p99, ms", 3)),
    bars=(Bar("one durable call, worker mode, p50, ms", "p50_ms", "palpable-durable-worker", at_most=3),),
    measure=measure,
)
