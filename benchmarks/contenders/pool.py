"""multiprocessing.Pool, with its default start method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.contender import WORKERS, Contender


class Pool(Contender):
    name = "pool"
    title = "multiprocessing.Pool"
    answers = frozenset(
        {"call_latency", "submit_throughput", "map_throughput", "import_warmth", "idle_cpu", "memory_at_rest"}
    )
    tasks_per_process: ClassVar[int | None] = None

    def set_up(self) -> None:
        import multiprocessing

        self.pool = multiprocessing.Pool(WORKERS, maxtasksperchild=self.tasks_per_process)

    def tear_down(self) -> None:
        self.pool.terminate()
        self.pool.join()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.pool.apply_async(function, (value,))

    def result(self, handle: Any) -> Any:
        return handle.get()

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        return self.pool.apply(function, (value,))

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        return self.pool.map(function, values, chunksize=1)

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        return self.pool.map(function, values)


class FreshPool(Pool):
    name = "pool-fresh"
    title = "multiprocessing.Pool, maxtasksperchild=1"
    answers = frozenset({"task_throughput", "call_latency", "import_warmth"})
    is_fresh = True
    tasks_per_process = 1


CONTENDERS = [Pool, FreshPool]
