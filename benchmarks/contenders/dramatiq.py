"""Dramatiq on Redis: two worker processes of one thread.

Runs in: the measuring process and Dramatiq's workers, which ask this module for `broker`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from benchmarks import tasks
from benchmarks.contender import WORKERS, Contender
from benchmarks.services import Command, Redis

RESULT_TIMEOUT_MILLISECONDS = 60_000


@functools.cache
def make_broker() -> Any:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    url = os.environ["BENCHMARK_REDIS_URL"]
    made = RedisBroker(url=url)
    made.add_middleware(Results(backend=RedisBackend(url=url)))
    dramatiq.set_broker(made)
    for function in tasks.FUNCTIONS:
        dramatiq.actor(function, store_results=True)
    return made


def __getattr__(name: str) -> Any:
    """Make `broker` when Dramatiq's workers ask for it: the driver, which imports this too, needs no Dramatiq."""
    if name == "broker":
        return make_broker()
    raise AttributeError(name)


class Dramatiq(Contender):
    name = "dramatiq"
    title = "Dramatiq on Redis, 2 processes of 1 thread"
    distribution = "dramatiq"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest"})
    map_limit = 2000
    queue_limit = 10_000

    def set_up(self) -> None:
        import dramatiq

        assert dramatiq
        self.redis = Redis()
        self.redis.start()
        self.broker = make_broker()
        module = "benchmarks.contenders.dramatiq:broker"
        self.worker = Command("dramatiq", module, "--processes", str(WORKERS), "--threads", "1", "--skip-logging")

    def tear_down(self) -> None:
        if hasattr(self, "worker"):
            self.worker.stop()
        self.redis.stop()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.broker.actors[function.__name__].send(value)

    def result(self, handle: Any) -> Any:
        return handle.get_result(block=True, timeout=RESULT_TIMEOUT_MILLISECONDS)


CONTENDERS = [Dramatiq]
