"""Huey with process workers, on SQLite and on Redis.

On SQLite both ends poll. The consumer looks every 5 ms at first and every 100 ms when idle (default: 0.1 to 10 s), the
client every 5 ms, so that the numbers show Huey and not its default patience. On Redis, results are pushed.

Runs in: the measuring process and Huey's consumer, which asks this module for `huey`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from benchmarks import tasks
from benchmarks.contender import WORKERS, Contender
from benchmarks.services import Command, Redis
from benchmarks.store_folder import store_folder

RESULT_TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.005


@functools.cache
def make_huey() -> Any:
    from huey import RedisHuey, SqliteHuey

    file = os.environ.get("BENCHMARK_HUEY_FILE")
    if file:
        made = SqliteHuey("benchmark", filename=file)
    else:
        made = RedisHuey("benchmark", url=os.environ["BENCHMARK_REDIS_URL"], notify_result=True)
    made.benchmark_tasks = {function.__name__: made.task()(function) for function in tasks.FUNCTIONS}
    return made


def __getattr__(name: str) -> Any:
    """Make `huey` when the consumer asks for it: the driver, which imports this too, needs no Huey."""
    if name == "huey":
        return make_huey()
    raise AttributeError(name)


class Huey(Contender):
    distribution = "huey"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest"})
    map_limit = 2000
    queue_limit = 10_000

    def start_consumer(self) -> None:
        self.tasks = make_huey().benchmark_tasks
        self.consumer = Command(
            *("huey_consumer", "benchmarks.contenders.huey.huey", "-w", str(WORKERS), "-k", "process", "--quiet"),
            *("--delay", str(POLL_SECONDS), "--max-delay", "0.1"),
        )

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.tasks[function.__name__](value)

    def result(self, handle: Any) -> Any:
        return handle.get(blocking=True, timeout=RESULT_TIMEOUT_SECONDS, max_delay=POLL_SECONDS)


class SqliteHuey(Huey):
    name = "huey-sqlite"
    title = "Huey on SQLite, 2 process workers, polling every 5 ms"
    answers = Huey.answers | {"durable_throughput"}

    def set_up(self) -> None:
        import huey

        assert huey
        os.environ["BENCHMARK_HUEY_FILE"] = os.path.join(store_folder(), "huey.db")
        self.start_consumer()

    def tear_down(self) -> None:
        if hasattr(self, "consumer"):
            self.consumer.stop()


class RedisHuey(Huey):
    name = "huey-redis"
    title = "Huey on Redis, 2 process workers, results pushed"

    def set_up(self) -> None:
        import huey

        assert huey
        self.redis = Redis()
        self.redis.start()
        self.start_consumer()

    def tear_down(self) -> None:
        if hasattr(self, "consumer"):
            self.consumer.stop()
        self.redis.stop()


CONTENDERS = [SqliteHuey, RedisHuey]
