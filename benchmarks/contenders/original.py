"""The original Palpable, 0.0.11. It has our import name, so it lives in an environment without us."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contender import WORKERS, Contender


class Original(Contender):
    name = "original"
    title = "the original Palpable"
    distribution = "palpable"
    environment = "original"
    answers = frozenset({"task_throughput", "call_latency", "import_warmth", "idle_cpu", "memory_at_rest"})
    is_fresh = True
    first_count = 64  # its client polls every half second, which would be all that a small batch shows
    queue_limit = 2000

    def set_up(self) -> None:
        import palpable.servants.server
        from palpable.servants.server import Server
        from palpable.units.client import Client

        # Our own package has these paths too, and we would race against ourselves.
        if not hasattr(palpable.servants.server, "Listener"):
            raise ImportError("the palpable in this environment is not the original")
        self.folder = tempfile.mkdtemp(prefix="bench-")
        address = os.path.join(self.folder, "socket")
        self.server = Server(self.folder, address, "AF_UNIX", b"benchmark", WORKERS)
        self.server.start()
        self.client = Client(address, "AF_UNIX", b"benchmark")

    def tear_down(self) -> None:
        self.server.stop()
        self.server.join()
        self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        from palpable.procedures.run_function import RunFunction

        return self.client.run_procedure(RunFunction(function, value), waiting_seconds=0).task_id

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        return self.client.run(function, value)

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        results: list[Any] = self.client.map(function, values)
        return results


CONTENDERS = [Original]
