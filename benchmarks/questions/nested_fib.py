"""How do tasks that wait for sub-tasks fare, with one worker, and how many processes live at once?"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.contender import Contender
from benchmarks.process_tree import PeakCounter
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.tasks import fib


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    number = min(settings.fib_number, contender.fib_limit or settings.fib_number)
    contender.call(contender.function("increment"), 0)
    zygotes = contender.zygotes()
    with PeakCounter(zygotes or contender.measured_processes()) as counter:
        started = perf_counter()
        answer = contender.nested_fib(number)
        elapsed = perf_counter() - started
    assert answer == fib(number), f"fib({number}) came out as {answer}"
    tasks = 2 * fib(number + 1) - 1
    return {
        "processes_over_depth": counter.peak - number if zygotes else None,
        "peak_processes": counter.peak,
        "at_rest": counter.at_rest,
        "tasks_per_second": tasks / elapsed,
        "count": tasks,
    }


QUESTION = Question(
    name="nested_fib",
    title="Recursion by sub-tasks",
    text=(
        "fib(12), where each call is a task that waits for its two sub-tasks: 465 tasks, 12 deep (fib(8), 67 tasks, "
        "for Ray, which would take minutes). Palpable has one worker and a process per task; the others have two, and "
        "reuse processes; waiting tasks of Dask are threads. Processes are counted every 4 ms: below the zygotes for "
        "Palpable, so with those forked ahead; below the measuring process for the others."
    ),
    metrics=(
        Metric("peak_processes", "processes at most"),
        Metric("processes_over_depth", "more than the depth"),
        Metric("at_rest", "before"),
        Metric("tasks_per_second", "tasks/s"),
    ),
    bars=(Bar("live processes more than the depth of fib(12)", "processes_over_depth", "palpable-one", at_most=2),),
    measure=measure,
)
