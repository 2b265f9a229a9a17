"""How fast is a stream beside a map, and does its memory stay flat?"""

from __future__ import annotations

import os
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.process_tree import resident_megabytes
from benchmarks.question import Bar, Metric, Question, Settings

WINDOW = 1000
"""Tasks. A chunk is one."""
LOOKS = 20
"""How often memory is looked at while the stream runs."""
TURNS = 5
SINGLE_TURNS = 3
SINGLE_PART = 20
"""A turn with one param in each task has so many times fewer: it is so much slower, or more."""


def measure(contender: Any, settings: Settings) -> dict[str, Any]:
    increment = contender.function("increment")
    calls, server = contender.calls, contender.server.pid
    count = settings.stream_count
    consume(calls.imap(increment, numbers(count // 100), window=WINDOW))

    step, ours, theirs = count // LOOKS, 0.0, 0.0
    results = calls.imap(increment, numbers(count), window=WINDOW)
    for look in range(LOOKS):
        total = sum(next(results) for _ in range(step))
        assert total == sum(range(look * step + 1, (look + 1) * step + 1)), "wrong results"
        ours, theirs = max(ours, resident_megabytes(os.getpid())), max(theirs, resident_megabytes(server))
    results.close()

    # Now the rates, in turns of the same length. What a map leaves in memory is no longer of interest.
    part = count // 10
    few = part // SINGLE_PART
    streamed, wide, mapped = [], [], []
    for _ in range(TURNS):
        streamed.append(rate(part, lambda: consume(calls.imap(increment, numbers(part), window=WINDOW))))
        wide.append(rate(part, lambda: consume(calls.imap(increment, numbers(part)))))
        mapped.append(rate(part, lambda: calls.map(increment, range(part))))
    single = [
        rate(few, lambda: consume(calls.imap(increment, numbers(few), window=WINDOW, chunksize=1)))
        for _ in range(SINGLE_TURNS)
    ]
    pairs = zip(streamed, mapped, strict=True)
    return {
        "items_per_second": median(streamed),
        "default_per_second": median(wide),
        "map_per_second": median(mapped),
        "of_map": median(ours / theirs for ours, theirs in pairs),
        "default_of_map": median(ours / theirs for ours, theirs in zip(wide, mapped, strict=True)),
        "single_per_second": median(single),
        "read_ahead": read_ahead(lambda params: calls.imap(increment, params, window=WINDOW), part),
        "client_mb": ours,
        "server_mb": theirs,
        "count": count,
    }


def numbers(count: int) -> Any:
    """A generator: nothing is known of its length."""
    yield from range(count)


def consume(results: Any) -> None:
    for _ in results:
        pass


def read_ahead(stream: Any, count: int) -> int:
    """Return how many params were read and not yielded, at most."""
    yielded = most = 0

    def params() -> Any:
        nonlocal most
        for number in range(count):
            most = max(most, number + 1 - yielded)
            yield number

    for yielded, _ in enumerate(stream(params()), 1):  # noqa: B007 - read by `params`
        pass
    return most


def rate(count: int, run: Any) -> float:
    started = perf_counter()
    run()
    return count / (perf_counter() - started)


QUESTION = Question(
    name="imap_stream",
    title="A long stream",
    text=(
        "`imap` of `x + 1` over a generator of `count` numbers, with a window of 1,000 and processes reused: the "
        "largest resident memory of the caller and of the server. A window counts tasks, and a chunk is one. Then, "
        "five times in turn, a tenth of that as `imap` with that window, as `imap` with the default window, and as "
        "`map`. Then, three times, a twentieth of that with `chunksize=1`, where the window counts params; and once, "
        "with chunks again, how many params were read and not yielded, at most."
    ),
    metrics=(
        Metric("items_per_second", "items/s"),
        Metric("default_per_second", "default window"),
        Metric("map_per_second", "map"),
        Metric("of_map", "imap / map", 2),
        Metric("default_of_map", "default window / map", 2),
        Metric("single_per_second", "chunksize 1"),
        Metric("read_ahead", "params ahead"),
        Metric("client_mb", "caller, MB", 1),
        Metric("server_mb", "server, MB", 1),
    ),
    bars=(
        Bar("imap, window 1,000 / map", "of_map", "palpable-worker", at_least=0.8),
        Bar("imap over 10,000,000, caller, MB resident", "client_mb", "palpable-worker", at_most=100),
        Bar("imap over 10,000,000, server, MB resident", "server_mb", "palpable-worker", at_most=150),
    ),
    measure=measure,
    timeout_seconds=180.0,
)
