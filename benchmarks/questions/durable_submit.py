"""How many tasks per second does a durable server accept?"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.timing import per_second

AN_HOUR = 3600.0
FIRST_COUNT = 1000


def measure(contender: Any, settings: Settings) -> dict[str, Any]:
    increment, client = contender.function("increment"), contender.client
    contender.call(increment, 0)
    futures: list[Any] = []

    def accept(calls: Any) -> Any:
        def run(count: int) -> None:
            futures[:] = [calls.submit(increment, number) for number in range(count)]
            # The list is answered once everything before it is on disk.
            assert client.tasks(limit=1)

        return run

    delayed, count = per_second(accept(contender.calls.options(delay_seconds=AN_HOUR)), settings.seconds, FIRST_COUNT)
    running, _ = per_second(accept(contender.calls), settings.seconds, FIRST_COUNT)
    started = perf_counter()
    assert [future.result() for future in futures] == list(range(1, len(futures) + 1)), "wrong results"
    return {
        "accepted_per_second": delayed,
        "accepted_running_per_second": running,
        "seconds_for_the_rest": perf_counter() - started,
        "count": count,
    }


QUESTION = Question(
    name="durable_submit",
    title="Accepting tasks durably",
    text=(
        "`x + 1`, submitted one by one, many in flight, each accepted only once it is on disk (fsync). The tasks are "
        "due in an hour, so that nothing but their acceptance is measured. `while they run`: the same with tasks that "
        "are run at once, by two processes that are reused; their results come later."
    ),
    metrics=(
        Metric("accepted_per_second", "accepted/s"),
        Metric("accepted_running_per_second", "while they run"),
        Metric("seconds_for_the_rest", "s until the last result", 2),
    ),
    bars=(
        Bar("durable submit, acknowledged tasks/s", "accepted_per_second", "palpable-durable-worker", at_least=15_000),
    ),
    measure=measure,
)
