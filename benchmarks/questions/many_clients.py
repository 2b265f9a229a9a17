"""What do a thousand clients that wait cost the server, and the next call?"""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter
from typing import Any

from benchmarks.process_tree import resident_megabytes
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.timing import call_seconds, percentile

AN_HOUR = 3600.0
AT_ONCE = 100
"""Clients that connect at the same time."""


class WaitingClients:
    """Clients of their own connections, each with a call that does not return; on one asyncio loop, in a thread."""

    def __init__(self, server: Any, function: Any, count: int) -> None:
        self._server, self._function, self._count = server, function, count
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self) -> None:
        from palpable import AsyncClient

        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = self._server
        clients = [AsyncClient(server.address, server.family, server.authkey) for _ in range(self._count)]
        waits: list[Any] = []
        try:
            for start in range(0, self._count, AT_ONCE):
                some = clients[start : start + AT_ONCE]
                await asyncio.gather(*(client.get_status() for client in some))
                for client in some:
                    call = client.options(delay_seconds=AN_HOUR, ends_with_client=True).run(self._function, 1)
                    waits.append(asyncio.ensure_future(call))
            while len(await clients[0].tasks("scheduled", limit=self._count)) < self._count:
                await asyncio.sleep(0.05)
            self._ready.set()
            await self._over.wait()
        except BaseException as error:
            self._error = error
            self._ready.set()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)

    def __enter__(self) -> WaitingClients:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


def measure(contender: Any, settings: Settings) -> dict[str, Any]:
    increment = contender.function("increment")

    def call() -> None:
        assert contender.call(increment, 1) == 2, "wrong result"

    call_seconds(call, settings.calls // 10, settings.seconds / 4)
    idle = call_seconds(call, settings.calls, settings.seconds)
    before = resident_megabytes(contender.server.pid)
    started = perf_counter()
    with WaitingClients(contender.server, increment, settings.client_count):
        connecting = perf_counter() - started
        call_seconds(call, settings.calls // 10, settings.seconds / 4)
        crowded = call_seconds(call, settings.calls, settings.seconds)
        resident = resident_megabytes(contender.server.pid)
    idle_p50, p99 = percentile(idle, 50) * 1000, percentile(crowded, 99) * 1000
    return {
        "server_mb": resident,
        "kb_each": (resident - before) * 1024 / settings.client_count,
        "idle_p50_ms": idle_p50,
        "idle_p99_ms": percentile(idle, 99) * 1000,
        "p50_ms": percentile(crowded, 50) * 1000,
        "p99_ms": p99,
        "p99_of_idle_p50": p99 / idle_p50,
        "seconds_to_connect": connecting,
        "count": settings.client_count,
    }


QUESTION = Question(
    name="many_clients",
    title="Many clients that wait",
    text=(
        "`count` clients, each with a connection of its own and a call that waits for its result (a task that is due "
        "in an hour); then one more client makes one call after the other, processes reused. `idle`: the same calls "
        "before the others were there."
    ),
    metrics=(
        Metric("server_mb", "server, MB", 1),
        Metric("kb_each", "KB per client", 1),
        Metric("idle_p50_ms", "idle p50, ms", 3),
        Metric("idle_p99_ms", "idle p99, ms", 3),
        Metric("p50_ms", "p50, ms", 3),
        Metric("p99_ms", "p99, ms", 3),
        Metric("p99_of_idle_p50", "p99 / idle p50", 2),
        Metric("seconds_to_connect", "s to connect all", 2),
    ),
    bars=(
        Bar("1,000 clients, server, MB resident", "server_mb", "palpable-worker", at_most=200),
        Bar("1,000 clients, p99 of one more call / idle p50", "p99_of_idle_p50", "palpable-worker", at_most=5),
    ),
    measure=measure,
)
