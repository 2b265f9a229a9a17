"""Palpable, in both of its modes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from benchmarks.contender import WORKERS, Contender
from benchmarks.store_folder import store_folder


class Palpable(Contender):
    distribution = "palpable"
    isolation: ClassVar[Literal["task", "worker"]]
    workers: ClassVar[int] = WORKERS
    preload: ClassVar[tuple[str, ...]] = ()
    is_durable: ClassVar[bool] = False

    def set_up(self) -> None:
        from palpable import Server

        store = os.path.join(store_folder(), "jobs.db") if self.is_durable else None
        self.server = Server(num_workers=self.workers, preload=list(self.preload), store=store)
        self.server.start()
        self.client = self.server.client()
        self.calls = self.client.options(isolation=self.isolation)

    def tear_down(self) -> None:
        self.client.close()
        self.server.stop()
        self.server.join()
        self.server.close()

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        return self.calls.submit(function, value)

    def result(self, handle: Any) -> Any:
        return handle.result()

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        return self.calls.run(function, value)

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        # In task mode; in worker mode this goes in chunks, and only `map` is asked for.
        results: list[Any] = self.calls.map(function, values)
        return results

    def measured_processes(self) -> list[int]:
        return [self.server.pid]

    def zygotes(self) -> list[int]:
        import psutil

        children = psutil.Process(self.server.pid).children()
        return [child.pid for child in children if any("_zygote" in word for word in child.cmdline())]


class PalpableTask(Palpable):
    name = "palpable-task"
    title = 'Palpable, isolation="task"'
    isolation = "task"
    is_fresh = True
    answers = frozenset(
        {"task_throughput", "call_latency", "import_warmth", "idle_cpu", "memory_at_rest", "durable_task_mode"}
    )


class PalpableTaskMain(PalpableTask):
    name = "palpable-task-main"
    title = 'Palpable, isolation="task", function of __main__'
    functions_from_main = True
    answers = frozenset({"task_throughput", "call_latency"})


class PalpableTaskPreload(PalpableTask):
    name = "palpable-task-preload"
    title = 'Palpable, isolation="task", preload=["numpy", "pandas"]'
    preload = ("numpy", "pandas")
    answers = frozenset({"import_warmth"})


class PalpableOneWorker(PalpableTask):
    name = "palpable-one"
    title = 'Palpable, isolation="task", one worker'
    workers = 1
    answers = frozenset({"nested_fib"})

    def nested_fib(self, number: int) -> int:
        result: int = self.client.run(fib_by_tasks, number)
        return result


class PalpableWorker(Palpable):
    name = "palpable-worker"
    title = 'Palpable, isolation="worker"'
    isolation = "worker"
    answers = frozenset(
        {"call_latency", "submit_throughput", "map_throughput", "imap_stream", "async_calls", "many_clients"}
    )


class PalpableWorkerMain(PalpableWorker):
    name = "palpable-worker-main"
    title = 'Palpable, isolation="worker", function of __main__'
    functions_from_main = True
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput"})


class PalpableDurableTask(PalpableTask):
    name = "palpable-durable-task"
    title = 'Palpable with a store, isolation="task"'
    is_durable = True
    answers = frozenset({"durable_task_mode"})


class PalpableDurableWorker(PalpableWorker):
    name = "palpable-durable-worker"
    title = 'Palpable with a store, isolation="worker"'
    is_durable = True
    answers = frozenset({"durable_submit", "durable_throughput", "durable_latency"})


class PalpableNotRunning(Contender):
    """For questions about a start: they start what they ask about themselves."""

    name = "palpable-start"
    title = "Palpable, started anew"
    distribution = "palpable"
    answers = frozenset({"start_up", "reopening", "disk_after_expiry"})

    def set_up(self) -> None:
        import palpable

        assert palpable

    def tear_down(self) -> None:
        pass


def fib_by_tasks(number: int) -> int:
    from palpable import current_task

    if number < 2:
        return number
    return sum(current_task().map(fib_by_tasks, [number - 1, number - 2]))


CONTENDERS = [
    PalpableTask,
    PalpableTaskMain,
    PalpableTaskPreload,
    PalpableOneWorker,
    PalpableWorker,
    PalpableWorkerMain,
    PalpableDurableTask,
    PalpableDurableWorker,
    PalpableNotRunning,
]
