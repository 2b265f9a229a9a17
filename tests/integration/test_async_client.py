"""The asynchronous client: the same calls, awaited, and no thread for any of them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from palpable import AsyncClient, Client, Server
from support import tasks
from support.wait import wait_until


def test_an_async_client_serves_many_coroutines_without_a_thread(server: Server) -> None:
    async def main() -> list[int]:
        threads = threading.active_count()
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            results = await asyncio.gather(*(client.run(tasks.double, number) for number in range(20)))
            assert await client.map(tasks.double, [1, 2]) == [2, 4]
            assert [item async for item in client.imap(tasks.double, [1, 2])] == [2, 4]
            with pytest.raises(tasks.OddNumber):
                await client.run(tasks.half, 1)
            assert threading.active_count() == threads
        return results

    assert asyncio.run(main()) == [number * 2 for number in range(20)]


def test_an_async_call_that_is_cancelled_ends_its_task(server: Server, client: Client, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey) as other:
            call = asyncio.create_task(other.run(tasks.block, str(tmp_path)))
            while not (tmp_path / "blocked").exists():
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())
    wait_until(lambda: not client.tasks(state="running"))
