"""The asynchronous client: the same calls, awaited, and no thread for any of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from palpable import AsyncClient, Client, Server
from support import tasks
from support.wait import wait_until


def test_an_async_client_serves_many_coroutines_without_a_thread(server: Server) -> None:
    async def main() -> list[int]:
        before = set(threading.enumerate())
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            results = await asyncio.gather(*(client.run(tasks.double, number) for number in range(20)))
            assert await client.map(tasks.double, [1, 2]) == [2, 4]
            assert [item async for item in client.imap(tasks.double, [1, 2])] == [2, 4]
            with pytest.raises(tasks.OddNumber):
                await client.run(tasks.half, 1)
            assert set(threading.enumerate()) <= before
        return results

    assert asyncio.run(main()) == [number * 2 for number in range(20)]


def test_an_argument_of_a_wrong_type_costs_nobody_what_is_pending(server: Server, tmp_path: Path) -> None:
    async def main() -> str:
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            pending = await client.submit(tasks.hold, str(tmp_path))
            wrong: Any = [5]
            for question in (client.cancel(wrong), client.logs(wrong), client.tasks(tags=wrong), client.purge(wrong)):
                with pytest.raises(TypeError, match="must be a string"):
                    await question
            (tmp_path / "holding.go").touch()
            return await pending

    assert asyncio.run(main()) == "holding"


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_call_that_is_cancelled_ends_its_task_only_if_asked(
    server: Server, client: Client, tmp_path: Path, is_asked: bool
) -> None:
    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey) as other:
            call = asyncio.create_task(other.options(ends_with_client=is_asked).run(tasks.block, str(tmp_path)))
            while not (tmp_path / "blocked").exists():
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())
    if is_asked:
        wait_until(lambda: not client.tasks(state="running"))
    else:
        (running,) = client.tasks(state="running")
        assert client.cancel(running.task_id)


def test_ten_thousand_calls_are_awaited_together_without_a_thread(server: Server) -> None:
    async def main() -> list[int]:
        before = set(threading.enumerate())
        async with AsyncClient(server.address, server.family, server.authkey, isolation="worker") as client:
            together = asyncio.gather(*(client.run(tasks.double, number) for number in range(10_000)))
            await asyncio.sleep(0)
            assert set(threading.enumerate()) <= before  # one of a test before may end
            return await together

    assert asyncio.run(main()) == list(range(0, 20_000, 2))


@pytest.fixture(scope="session")
def run_on_uvloop() -> Callable[..., Any]:
    """`uvloop.run`, after uvloop has opened the pipe that it keeps for as long as the process lives."""
    uvloop = pytest.importorskip("uvloop")
    uvloop.run(asyncio.sleep(0))
    run: Callable[..., Any] = uvloop.run
    return run


def test_a_stream_of_an_asynchronous_source_runs_on_real_processes(
    run_on_uvloop: Callable[..., Any], server: Server
) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(2000):
            yield number
            if number % 100 == 0:
                await asyncio.sleep(0)

    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey, isolation="worker") as client:
            assert [value async for value in client.imap(tasks.double, source())] == list(range(0, 4000, 2))
            assert sorted([value async for value in client.imap_unordered(tasks.double, source())]) == list(
                range(0, 4000, 2)
            )
            found: list[int] = []
            with pytest.raises(tasks.OddNumber):
                async for value in client.imap(tasks.half, [0, 2, 4, 5, 6], chunksize=5):
                    found.append(value)
            assert found == [0, 1, 2]

    asyncio.run(main())
    run_on_uvloop(main())
