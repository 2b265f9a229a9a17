"""How fast is `map` over many params, in chunks where the contender has chunks?"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.contender import Contender
from benchmarks.question import Bar, Metric, Question, Settings


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    function = contender.function("increment")
    count = settings.limited(settings.map_count, contender.map_limit)
    expected = list(range(1, count + 1))
    contender.map(function, range(count // 10))
    figures: dict[str, Any] = {"count": count}
    for figure, params in (("params_per_second", range(count)), ("listed_params_per_second", list(range(count)))):
        # The best of three, since one map takes only some 40 ms where there are chunks.
        rates = []
        for _ in range(3 if contender.map_limit is None else 1):
            started = perf_counter()
            results = contender.map(function, params)
            rates.append(count / (perf_counter() - started))
            assert results == expected, "wrong results"
        figures[figure] = max(rates)
    return figures


QUESTION = Question(
    name="map_throughput",
    title="Throughput of map, processes reused",
    text=(
        "`map` of `x + 1` over a range of 100,000 numbers, then over a list of them (fewer where that would take "
        "minutes, see `count`), after one over a tenth as many; the best of three in each round. Chunks are "
        "Palpable's, Pool's, joblib's and mpire's own choice; ProcessPoolExecutor, loky and Pebble get the size that "
        "Pool chooses."
    ),
    metrics=(Metric("params_per_second", "params/s"), Metric("listed_params_per_second", "params/s of a list")),
    bars=(
        Bar("map of a range, worker mode / Pool.map", "params_per_second", "palpable-worker", "pool", at_least=1.0),
        Bar(
            "map of a list, worker mode / Pool.map",
            "listed_params_per_second",
            "palpable-worker",
            "pool",
            at_least=1.0,
        ),
    ),
    measure=measure,
)
