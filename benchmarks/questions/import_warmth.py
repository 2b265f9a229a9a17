"""What does a task pay for importing numpy and pandas, when an earlier one did so too?"""

from __future__ import annotations

from time import perf_counter, sleep
from typing import Any

from benchmarks.contender import Contender
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.timing import call_seconds, percentile

LATER_CALLS = 20


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    importing = contender.function("import_numpy_and_pandas")
    nothing = contender.function("import_nothing")

    def milliseconds(function: Any) -> float:
        started = perf_counter()
        contender.call(function, 0)
        return (perf_counter() - started) * 1000

    def median_milliseconds(function: Any) -> float:
        durations = call_seconds(lambda: contender.call(function, 0), LATER_CALLS, settings.seconds)
        return percentile(durations, 50) * 1000

    milliseconds(nothing)
    nothing_ms = median_milliseconds(nothing)
    first_ms = milliseconds(importing)
    sleep(settings.rest_seconds)  # a server that learns from the first has time to load what it imported
    second_ms = milliseconds(importing)
    third_ms = milliseconds(importing)
    later_ms = median_milliseconds(importing)
    nothing_later_ms = median_milliseconds(nothing)
    return {
        "nothing_ms": nothing_ms,
        "first_ms": first_ms,
        "second_ms": second_ms,
        "extra_ms": second_ms - nothing_ms,
        "third_ms": third_ms,
        "later_ms": later_ms,
        "nothing_later_ms": nothing_later_ms,
        "count": 1,
    }


QUESTION = Question(
    name="import_warmth",
    title="The second task that imports numpy and pandas",
    text=(
        f"In this order: tasks that import nothing (median of {LATER_CALLS}); the first that imports numpy and pandas; "
        f"3 s of rest; the second; the third at once; {LATER_CALLS} more (median); and again tasks that "
        "import nothing. `extra` is the second minus the first column. Contenders that reuse processes are warm anyway."
    ),
    metrics=(
        Metric("nothing_ms", "imports nothing, ms", 2),
        Metric("first_ms", "first, ms", 1),
        Metric("second_ms", "second, ms", 1),
        Metric("extra_ms", "extra, ms", 1),
        Metric("third_ms", "third, ms", 1),
        Metric("later_ms", "later, ms", 1),
        Metric("nothing_later_ms", "nothing, later, ms", 2),
    ),
    bars=(
        Bar("second task with numpy and pandas, extra ms", "extra_ms", "palpable-task", at_most=10),
        Bar("the same, preloaded by name, extra ms", "extra_ms", "palpable-task-preload", at_most=10),
    ),
    measure=measure,
)
