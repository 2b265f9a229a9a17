"""mpire's WorkerPool, kept alive between calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contender import WORKERS, Contender


class Mpire(Contender):
    name = "mpire"
    title = "mpire WorkerPool, keep_alive=True"
    distribution = "mpire"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput", "idle_cpu"})

    def set_up(self) -> None:
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=WORKERS, keep_alive=True)

    def tear_down(self) -> None:
        self.pool.terminate()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.pool.apply_async(function, (value,))

    def result(self, handle: Any) -> Any:
        return handle.get()

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        return self.pool.apply(function, (value,))

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        results: list[Any] = self.pool.map(function, values)
        return results


class FreshMpire(Mpire):
    name = "mpire-fresh"
    title = "mpire WorkerPool.map, worker_lifespan=1, chunk_size=1"
    answers = frozenset({"task_throughput"})
    is_fresh = True

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        results: list[Any] = self.pool.map(function, values, chunk_size=1, worker_lifespan=1)
        return results


CONTENDERS = [Mpire, FreshMpire]
