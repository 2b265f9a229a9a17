"""loky's ProcessPoolExecutor."""

from __future__ import annotations

from benchmarks.contender import WORKERS
from benchmarks.contenders.executor import Executor


class Loky(Executor):
    name = "loky"
    title = "loky ProcessPoolExecutor"
    distribution = "loky"
    answers = frozenset({"call_latency", "submit_throughput", "map_throughput", "idle_cpu", "memory_at_rest"})

    def set_up(self) -> None:
        from loky import ProcessPoolExecutor

        self.executor = ProcessPoolExecutor(WORKERS)

    def tear_down(self) -> None:
        self.executor.shutdown(wait=True, kill_workers=True)


CONTENDERS = [Loky]
