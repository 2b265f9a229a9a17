"""Dask distributed on a local cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contender import WORKERS, Contender


class Dask(Contender):
    name = "dask"
    title = "Dask LocalCluster, 2 worker processes of 1 thread, no dashboard"
    distribution = "distributed"
    answers = frozenset(
        {"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest", "nested_fib"}
    )
    map_limit = 2000
    queue_limit = 2000

    def set_up(self) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="ERROR"
        )
        self.client = Client(self.cluster)

    def tear_down(self) -> None:
        self.client.close()
        self.cluster.close()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.client.submit(function, value, pure=False)

    def result(self, handle: Any) -> Any:
        return handle.result()

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        results: list[Any] = self.client.gather(self.client.map(function, values, pure=False))
        return results

    def nested_fib(self, number: int) -> int:
        result: int = self.client.submit(fib_by_tasks, number, pure=False).result()
        return result


def fib_by_tasks(number: int) -> int:
    from distributed import worker_client

    if number < 2:
        return number
    with worker_client() as client:
        return sum(client.gather(client.map(fib_by_tasks, [number - 1, number - 2], pure=False)))


CONTENDERS = [Dask]
