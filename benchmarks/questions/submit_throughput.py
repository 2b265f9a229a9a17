"""How many futures per second, submitted one by one by one thread?"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.contender import Contender
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.timing import per_second


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    function = contender.function("increment")
    submit_rate = 0.0

    def run(count: int) -> None:
        nonlocal submit_rate
        started = perf_counter()
        handles = [contender.submit(function, number) for number in range(count)]
        submit_rate = count / (perf_counter() - started)
        results = [contender.result(handle) for handle in handles]
        assert results == list(range(1, count + 1)), "wrong results"

    contender.call(function, 0)
    rate, count = per_second(run, settings.seconds)
    return {"results_per_second": rate, "submits_per_second": submit_rate, "count": count}


def at_least(ratio: float, ours: str, theirs: str, claim: str) -> Bar:
    return Bar(claim, "results_per_second", ours, theirs, at_least=ratio)


QUESTION = Question(
    name="submit_throughput",
    title="Throughput of single futures, processes reused",
    text=(
        "`x + 1`, submitted one by one, each with a future or handle of its own; then the results are collected one by "
        "one. `results/s` counts until the last result is in hand, and the bars are on it; `submits/s` counts the "
        "submitting loop alone, which flatters whoever queues in the caller."
    ),
    metrics=(Metric("results_per_second", "results/s"), Metric("submits_per_second", "submits/s")),
    bars=(
        at_least(3, "palpable-worker", "pool", "futures, worker mode / Pool.apply_async"),
        at_least(10, "palpable-worker", "executor", "futures, worker mode / ProcessPoolExecutor.submit"),
    ),
    measure=measure,
)
