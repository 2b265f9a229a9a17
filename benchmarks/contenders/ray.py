"""Ray on this machine, without its dashboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.contender import WORKERS, Contender


class Ray(Contender):
    name = "ray"
    title = "Ray, num_cpus=2, no dashboard"
    distribution = "ray"
    answers = frozenset(
        {"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest", "nested_fib"}
    )
    map_limit = 5000
    queue_limit = 5000
    fib_limit = 8
    options: ClassVar[dict[str, Any]] = {"num_cpus": 1}

    def set_up(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self.ray = ray
        self.ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
        )
        self.remote: dict[Callable[..., Any], Any] = {}

    def tear_down(self) -> None:
        self.ray.shutdown()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        if function not in self.remote:
            self.remote[function] = self.ray.remote(**self.options)(function)
        return self.remote[function].remote(value)

    def result(self, handle: Any) -> Any:
        return self.ray.get(handle)

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        results: list[Any] = self.ray.get([self.submit(function, value) for value in values])
        return results

    def nested_fib(self, number: int) -> int:
        result: int = self.ray.get(self.ray.remote(**self.options)(fib_by_tasks).remote(number))
        return result


class FreshRay(Ray):
    name = "ray-fresh"
    title = "Ray, max_calls=1"
    answers = frozenset({"task_throughput"})
    is_fresh = True
    options: ClassVar[dict[str, Any]] = {"num_cpus": 1, "max_calls": 1}


def fib_by_tasks(number: int) -> int:
    import ray

    if number < 2:
        return number
    remote = ray.remote(num_cpus=1)(fib_by_tasks)
    return sum(ray.get([remote.remote(number - 1), remote.remote(number - 2)]))


CONTENDERS = [Ray, FreshRay]
