"""Palpable, in both of its modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from benchmarks.contender import WORKERS, Contender


class Palpable(Contender):
    distribution = "palpable"
    isolation: ClassVar[Literal["task", "worker"]]
    workers: ClassVar[int] = WORKERS
    preload: ClassVar[tuple[str, ...]] = ()

    def set_up(self) -> None:
        from palpable import Server

        self.server = Server(num_workers=self.workers, preload=list(self.preload))
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
    answers = frozenset({"task_throughput", "call_latency", "import_warmth", "idle_cpu", "memory_at_rest"})


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
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput"})


class PalpableWorkerMain(PalpableWorker):
    name = "palpable-worker-main"
    title = 'Palpable, isolation="worker", function of __main__'
    functions_from_main = True


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
]
