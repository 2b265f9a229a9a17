"""concurrent.futures.ProcessPoolExecutor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contender import WORKERS, Contender


class Executor(Contender):
    name = "executor"
    title = "ProcessPoolExecutor"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest"})

    executor: Any

    def set_up(self) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self.executor = ProcessPoolExecutor(WORKERS)

    def tear_down(self) -> None:
        self.executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.executor.submit(function, value)

    def result(self, handle: Any) -> Any:
        return handle.result()

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        return list(self.executor.map(function, values))

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        # Its default sends one by one; this is the chunk size that Pool.map chooses.
        return list(self.executor.map(function, values, chunksize=max(len(values) // (4 * WORKERS), 1)))


class FreshExecutor(Executor):
    name = "executor-fresh"
    title = "ProcessPoolExecutor, max_tasks_per_child=1, forkserver"
    answers = frozenset({"task_throughput", "call_latency", "import_warmth"})
    is_fresh = True

    def set_up(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("forkserver")
        self.executor = ProcessPoolExecutor(WORKERS, mp_context=context, max_tasks_per_child=1)


CONTENDERS = [Executor, FreshExecutor]
