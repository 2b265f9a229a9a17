"""Many clients at once: they come together, wait together, and go, and none of them is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from palpable import AsyncClient, Client, Server
from palpable.servants.client_session import HANDSHAKES_MAX
from support import tasks
from support.wait import wait_until

MANY = 1000


@pytest.fixture
def enough_files() -> Iterator[None]:
    """This process may open as many files as it has clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * MANY:
        pytest.skip("not enough files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MANY), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _clients(server: Server, count: int) -> list[AsyncClient]:
    return [AsyncClient(server.address, server.family, server.authkey, isolation="worker") for _ in range(count)]


@pytest.mark.usefixtures("enough_files")
def test_a_thousand_clients_that_come_at_the_same_moment_are_all_served(server: Server) -> None:
    async def main() -> list[int]:
        clients = _clients(server, MANY)
        results = await asyncio.gather(*(client.run(tasks.double, place) for place, client in enumerate(clients)))
        await asyncio.gather(*(client.close() for client in clients))
        return results

    assert asyncio.run(main()) == [place * 2 for place in range(MANY)]


@pytest.mark.usefixtures("enough_files")
def test_a_thousand_clients_that_wait_take_little_of_the_server_and_leave_nothing(server: Server) -> None:
    process = psutil.Process(server.pid)

    async def main() -> int:
        clients = _clients(server, MANY)
        await asyncio.gather(*(client.get_status() for client in clients))
        waits = [
            asyncio.ensure_future(client.options(delay_seconds=3600, ends_with_client=True).run(tasks.double, 1))
            for client in clients
        ]
        async with AsyncClient(server.address, server.family, server.authkey) as other:
            while len(await other.tasks("scheduled", limit=MANY)) < MANY:
                await asyncio.sleep(0.01)
            assert await other.run(tasks.double, 2) == 4
            used = process.memory_info().rss
            await asyncio.gather(*(client.close() for client in clients))
            await asyncio.gather(*waits, return_exceptions=True)
            while await other.tasks("scheduled"):
                await asyncio.sleep(0.01)
        return used

    with server.client() as client:
        wait_until(lambda: client.get_status()["processes"]["idle"] == 4)  # each has a socket
    before, files_before = process.memory_info().rss, process.num_fds()
    assert asyncio.run(main()) - before < 50 << 20
    wait_until(lambda: process.num_fds() <= files_before + 2)


@pytest.mark.usefixtures("enough_files")
def test_the_usual_limit_on_open_files_does_not_hold_for_the_server_and_does_for_tasks(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        server = Server(logging_folder=str(tmp_path / "logs"), num_workers=1).start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def limit_of_tasks(_: None) -> int:
        import resource

        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    async def main() -> None:
        clients = _clients(server, 400)
        await asyncio.gather(*(client.get_status() for client in clients))
        assert await clients[0].run(limit_of_tasks, None) == 300
        await asyncio.gather(*(client.close() for client in clients))

    with server:
        asyncio.run(main())


def test_who_comes_when_all_handshakes_are_taken_waits_for_a_turn(server: Server) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(HANDSHAKES_MAX + 20)]
    answers: list[int] = []

    def ask() -> None:
        with Client(server.address, server.family, server.authkey) as client:
            answers.append(client.run(tasks.double, 4))

    with contextlib.ExitStack() as stack:
        for one in silent:
            stack.enter_context(one).connect(str(server.address))
        waiting = threading.Thread(target=ask)
        waiting.start()
        for one in silent[:30]:  # some that had begun are gone, and some that waited
            one.close()
        for one in silent[-10:]:
            one.close()
        waiting.join(30)
    assert answers == [8]
