"""Celery on Redis, prefork pool.

Runs in: the measuring process and Celery's worker, which asks this module for `app`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks import tasks
from benchmarks.contender import WORKERS, Contender
from benchmarks.services import Command, Redis

RESULT_TIMEOUT_SECONDS = 60


@functools.cache
def make_app() -> Any:
    import celery

    url = os.environ["BENCHMARK_REDIS_URL"]
    app = celery.Celery("benchmark", broker=url, backend=url)
    app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
    for function in tasks.FUNCTIONS:
        app.task(function, name=function.__name__)
    return app


def __getattr__(name: str) -> Any:
    """Make `app` when Celery's worker asks for it: the driver, which imports this too, needs no Celery."""
    if name == "app":
        return make_app()
    raise AttributeError(name)


class Celery(Contender):
    name = "celery"
    title = "Celery on Redis, prefork, concurrency 2"
    distribution = "celery"
    answers = frozenset(
        {"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest", "durable_throughput"}
    )
    map_limit = 2000
    queue_limit = 5000
    worker_options: ClassVar[tuple[str, ...]] = ()

    def set_up(self) -> None:
        import celery

        assert celery
        self.redis = Redis()
        self.redis.start()
        app = make_app()
        self.tasks = {function: app.tasks[function.__name__] for function in tasks.FUNCTIONS}
        self.worker = Command(
            *("celery", "-A", "benchmarks.contenders.celery:app", "worker", "--concurrency", str(WORKERS)),
            *("--loglevel", "ERROR", "--without-gossip", "--without-mingle", *self.worker_options),
        )

    def tear_down(self) -> None:
        if hasattr(self, "worker"):
            self.worker.stop()
        self.redis.stop()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.tasks[function].delay(value)

    def result(self, handle: Any) -> Any:
        return handle.get(timeout=RESULT_TIMEOUT_SECONDS)

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        import celery

        signatures = [self.tasks[function].s(value) for value in values]
        results: list[Any] = celery.group(signatures).apply_async().get(timeout=RESULT_TIMEOUT_SECONDS)
        return results


class FreshCelery(Celery):
    name = "celery-fresh"
    title = "Celery on Redis, prefork, --max-tasks-per-child 1"
    answers = frozenset({"task_throughput"})
    is_fresh = True
    worker_options = ("--max-tasks-per-child", "1")


CONTENDERS = [Celery, FreshCelery]
