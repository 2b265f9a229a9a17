"""Pebble's ProcessPool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.contender import WORKERS, Contender


class Pebble(Contender):
    name = "pebble"
    title = "Pebble ProcessPool"
    distribution = "Pebble"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput", "idle_cpu"})
    tasks_per_process: ClassVar[int] = 0  # its word for no limit

    def set_up(self) -> None:
        from pebble import ProcessPool

        self.pool = ProcessPool(max_workers=WORKERS, max_tasks=self.tasks_per_process)

    def tear_down(self) -> None:
        self.pool.stop()
        self.pool.join(10)

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.pool.schedule(function, args=[value])

    def result(self, handle: Any) -> Any:
        return handle.result()

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        chunk_size = max(len(values) // (4 * WORKERS), 1)
        return list(self.pool.map(function, values, chunksize=chunk_size).result())


class FreshPebble(Pebble):
    name = "pebble-fresh"
    title = "Pebble ProcessPool, max_tasks=1"
    answers = frozenset({"task_throughput"})
    is_fresh = True
    tasks_per_process = 1


CONTENDERS = [Pebble, FreshPebble]
