"""joblib with its default backend, loky. It has no futures, so it takes part where whole calls are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contender import WORKERS, Contender


class Joblib(Contender):
    name = "joblib"
    title = "joblib.Parallel (loky), one Parallel kept open"
    distribution = "joblib"
    answers = frozenset({"call_latency", "map_throughput"})

    def set_up(self) -> None:
        import joblib

        self.delayed = joblib.delayed
        self.parallel = joblib.Parallel(n_jobs=WORKERS)
        self.parallel.__enter__()

    def tear_down(self) -> None:
        self.parallel.__exit__(None, None, None)

        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        return self.parallel([self.delayed(function)(value)])[0]

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        results: list[Any] = self.parallel(self.delayed(function)(value) for value in values)
        return results


CONTENDERS = [Joblib]
