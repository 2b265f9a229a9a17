"""How many tasks per second, when every task has a process of its own?"""

from __future__ import annotations

from typing import Any

from benchmarks.contender import Contender
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.timing import per_second


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    function = contender.function("increment")

    def run(count: int) -> None:
        results = contender.map_each(function, range(count))
        assert results == list(range(1, count + 1)), "wrong results"

    contender.call(function, 0)
    rate, count = per_second(run, settings.seconds, contender.first_count)
    return {"tasks_per_second": rate, "count": count}


def at_least(ratio: float, theirs: str, peer: str) -> Bar:
    return Bar(f"throughput, task mode / {peer}", "tasks_per_second", "palpable-task", theirs, at_least=ratio)


QUESTION = Question(
    name="task_throughput",
    title="Throughput with a process per task",
    text=(
        "`x + 1` over a batch of numbers, a fresh process for each, from handing in the batch until the last result is "
        "there. The floors: two processes at once, each forking children that end at once and run nothing."
    ),
    metrics=(Metric("tasks_per_second", "tasks/s"),),
    bars=(
        at_least(0.7, "floor-bare", "bare fork + _exit + wait"),
        at_least(0.7, "floor-modules", "the same with a zygote's modules"),
        at_least(0.7, "floor-zygote", "the same with all a zygote holds"),
        at_least(5, "pool-fresh", "Pool, maxtasksperchild=1"),
        at_least(15, "rq", "RQ"),
        at_least(30, "original", "the original"),
    ),
    measure=measure,
)
