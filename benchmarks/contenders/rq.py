"""RQ on Redis: its default worker forks for each job, its SimpleWorker runs jobs in itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.contender import WORKERS, Contender
from benchmarks.services import Command, Redis

RESULT_TIMEOUT_SECONDS = 60


class Rq(Contender):
    name = "rq"
    title = "RQ on Redis, 2 workers, a fork per job"
    distribution = "rq"
    answers = frozenset({"task_throughput", "call_latency", "import_warmth", "idle_cpu", "memory_at_rest"})
    is_fresh = True
    queue_limit = 10_000
    worker_class: ClassVar[str] = "rq.worker.Worker"

    def set_up(self) -> None:
        import redis
        import rq

        self.redis = Redis()
        self.redis.start()
        self.queue = rq.Queue(connection=redis.Redis.from_url(self.redis.url))
        arguments = ["--url", self.redis.url, "--quiet", "--disable-job-desc-logging", "-w", self.worker_class]
        self.workers = [Command("rq", "worker", *arguments) for _ in range(WORKERS)]

    def tear_down(self) -> None:
        for worker in getattr(self, "workers", []):
            worker.stop()
        self.redis.stop()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.queue.enqueue(function, value)

    def result(self, handle: Any) -> Any:
        result = handle.latest_result(timeout=RESULT_TIMEOUT_SECONDS)
        if result is None:
            raise TimeoutError(f"no result within {RESULT_TIMEOUT_SECONDS} s")
        return result.return_value

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        jobs = self.queue.enqueue_many([self.queue.prepare_data(function, (value,)) for value in values])
        return [self.result(job) for job in jobs]


class SimpleRq(Rq):
    name = "rq-simple"
    title = "RQ on Redis, 2 SimpleWorkers, no fork"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput"})
    is_fresh = False
    map_limit = 5000
    worker_class = "rq.worker.SimpleWorker"


CONTENDERS = [Rq, SimpleRq]
