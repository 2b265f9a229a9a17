"""What do thousands of awaited calls cost beside as many futures?"""

from __future__ import annotations

import asyncio
import threading
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.question import Bar, Metric, Question, Settings

TURNS = 5


def measure(contender: Any, settings: Settings) -> dict[str, Any]:
    from palpable import AsyncClient

    increment, count = contender.function("increment"), settings.awaited_count
    server, calls = contender.server, contender.calls
    expected = list(range(1, count + 1))
    threads_before = threading.active_count()
    threads: list[int] = []
    awaited: list[float] = []
    gathered: list[float] = []
    submitted: list[float] = []

    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            view = client.options(isolation="worker")
            for _ in range(TURNS + 1):  # the first is the warm-up of all
                started = perf_counter()
                futures = [await view.submit(increment, number) for number in range(count)]
                threads.append(threading.active_count())
                assert [await future for future in futures] == expected, "wrong results"
                awaited.append(count / (perf_counter() - started))
                started = perf_counter()
                together = asyncio.gather(*(view.run(increment, number) for number in range(count)))
                assert await together == expected, "wrong results"
                gathered.append(count / (perf_counter() - started))
                await asyncio.to_thread(submit)

    def submit() -> None:
        started = perf_counter()
        futures = [calls.submit(increment, number) for number in range(count)]
        assert [future.result() for future in futures] == expected, "wrong results"
        submitted.append(count / (perf_counter() - started))

    asyncio.run(main())
    return {
        "calls_per_second": median(awaited[1:]),
        "submit_per_second": median(submitted[1:]),
        "gathered_per_second": median(gathered[1:]),
        "of_submit": ratio(awaited, submitted),
        "gathered_of_submit": ratio(gathered, submitted),
        "more_threads": threads[0] - threads_before,
        "count": count,
    }


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the turns' ratios, without the first turn."""
    return median(mine / other for mine, other in zip(ours[1:], theirs[1:], strict=True))


QUESTION = Question(
    name="async_calls",
    title="Many calls awaited together",
    text=(
        "`count` calls of `x + 1` on one asyncio loop: submitted with `AsyncClient.submit`, then all awaited; the same "
        "number as coroutines of `AsyncClient.run` in one `asyncio.gather`, which makes an asyncio task of each; as "
        "many futures by `Client.submit`. Five times in turn; processes reused. `more threads`: those that live while "
        "the first are awaited, and did not before."
    ),
    metrics=(
        Metric("calls_per_second", "calls/s"),
        Metric("submit_per_second", "submit, results/s"),
        Metric("gathered_per_second", "gathered, calls/s"),
        Metric("of_submit", "awaited / submit", 2),
        Metric("gathered_of_submit", "gathered / submit", 2),
        Metric("more_threads", "more threads"),
    ),
    bars=(
        Bar("awaited together / submit", "of_submit", "palpable-worker", at_least=1.0),
        Bar("threads for 10,000 awaited calls", "more_threads", "palpable-worker", at_most=0),
    ),
    measure=measure,
)
