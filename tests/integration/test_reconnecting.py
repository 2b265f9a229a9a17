"""Connections that are cut in the middle of frames, and servers that are killed and started again: clients go on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable import AsyncClient, Client, RunFunction, Server, ServerUnreachable, TaskKilledByQuitSignal, TaskLost
from support import tasks
from support.cutting_proxy import CuttingProxy
from support.scripts import run_script
from support.wait import wait_until


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[CuttingProxy]:
    with CuttingProxy(tmp_path, server.address) as proxy:
        yield proxy


@pytest.fixture
def cut_client(server: Server, proxy: CuttingProxy) -> Iterator[Client]:
    """A client of the proxy."""
    with Client(proxy.address, None, server.authkey, reconnect_seconds=30) as client:
        yield client


def _starts(path: Path) -> list[str]:
    return sorted(path.read_text().split(), key=int) if path.exists() else []


def _note(param: tuple[str, int]) -> int:
    path, number = param
    return int(tasks.append_line(path, str(number)))


# --- connections that are cut -------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_map_over_connections_that_are_cut_returns_the_right_list_and_runs_nothing_twice(
    proxy: CuttingProxy, cut_client: Client, tmp_path: Path, isolation: str
) -> None:
    noted = tmp_path / "noted"
    client = cut_client.options(isolation=isolation)  # type: ignore[arg-type]
    proxy.cut_at_random(seed=5, one_in=6)
    rounds = 0
    while proxy.cuts < 10 and rounds < 40:
        noted.unlink(missing_ok=True)
        assert client.map(_note, [(str(noted), number) for number in range(60)], chunksize=3) == list(range(60))
        assert _starts(noted) == [str(number) for number in range(60)]
        rounds += 1
    assert proxy.cuts >= 10


def test_a_submission_whose_answer_was_cut_runs_once(proxy: CuttingProxy, cut_client: Client, tmp_path: Path) -> None:
    cut_client.get_status()
    answers: list[bytes] = []

    def cut_the_first(data: bytes) -> int | None:
        answers.append(data)
        return 7 if len(answers) == 1 else None  # in the middle of the frame

    proxy.to_client = cut_the_first
    future = cut_client.submit(_note, (str(tmp_path / "noted"), 1))
    assert future.result(20) == 1
    assert proxy.cuts == 1
    assert _starts(tmp_path / "noted") == ["1"]


def test_a_submission_that_was_cut_in_the_middle_runs(proxy: CuttingProxy, cut_client: Client, tmp_path: Path) -> None:
    cut_client.get_status()
    pieces: list[bytes] = []

    def cut_the_second(data: bytes) -> int | None:
        pieces.append(data)
        return 100 if len(pieces) == 2 else None  # an argument of several pieces

    proxy.to_server = cut_the_second
    data = os.urandom(20_000)
    assert cut_client.submit(len, data).result(20) == 20_000
    assert proxy.cuts == 1


def test_a_result_is_removed_only_when_the_client_has_it(
    client: Client, proxy: CuttingProxy, cut_client: Client
) -> None:
    task_id = client.run_procedure(RunFunction(tasks.double, 4), waiting_seconds=0).task_id
    assert client.result(task_id, 20) == 8
    cut_client.get_status()
    proxy.to_client = lambda data: 5 if b"found" in data and proxy.cuts == 0 else None
    result = cut_client.query_result(task_id)
    assert result is not None and result.data == 8
    assert proxy.cuts == 1
    wait_until(lambda: client.query_result(task_id, keep=True) is None)


def test_followed_output_is_neither_repeated_nor_torn(proxy: CuttingProxy, cut_client: Client, tmp_path: Path) -> None:
    future = cut_client.submit(tasks.print_and_wait, str(tmp_path))
    pieces: list[str] = []
    for piece in cut_client.logs(future.task_id, follow=True):
        pieces.append(piece)
        if len(pieces) == 1:
            proxy.cut_all()
            (tmp_path / "holding.go").touch()
    assert future.result(20)
    assert "".join(pieces) == cut_client.logs(future.task_id)


def test_an_asyncio_client_goes_on_too(server: Server, proxy: CuttingProxy, tmp_path: Path) -> None:
    noted = tmp_path / "noted"

    async def main() -> None:
        async with AsyncClient(proxy.address, None, server.authkey, reconnect_seconds=30) as client:
            proxy.cut_at_random(seed=11, one_in=6)
            rounds = 0
            while proxy.cuts < 5 and rounds < 40:
                noted.unlink(missing_ok=True)
                params = [(str(noted), number) for number in range(20)]
                assert await client.map(_note, params) == list(range(20))
                assert _starts(noted) == [str(number) for number in range(20)]
                future = await client.submit(tasks.double, 4)
                assert await future == 8
                assert (await client.get_status())["num_workers"] == 2
                rounds += 1
            assert proxy.cuts >= 5

    asyncio.run(main())


def test_over_tls_it_is_the_same(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "support" / "tls"
    certificate, key = folder / "server.crt", folder / "server.key"
    noted = tmp_path / "noted"
    with (
        Server(authkey=b"key", address=("127.0.0.1", 0), num_workers=2, tls=(certificate, key)) as server,
        CuttingProxy(tmp_path, server.address) as proxy,
        Client(proxy.address, None, b"key", tls=certificate, reconnect_seconds=30) as client,
    ):
        proxy.cut_at_random(seed=3, one_in=12)
        rounds = 0
        while proxy.cuts < 5 and rounds < 60:
            noted.unlink(missing_ok=True)
            assert client.map(_note, [(str(noted), number) for number in range(20)]) == list(range(20))
            assert _starts(noted) == [str(number) for number in range(20)]
            future = client.submit(tasks.double, 4)
            assert wait_until(future.done)
            rounds += 1
        assert proxy.cuts >= 5


# --- servers that end ---------------------------------------------------------------------------------------------


def test_a_server_without_a_store_that_ends_keeps_nobody_waiting(tmp_path: Path) -> None:
    with Server(num_workers=1) as server:
        client = server.client()
        blocked = client.submit(tasks.block, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
        started = time.monotonic()
    with pytest.raises((ServerUnreachable, TaskKilledByQuitSignal)):
        blocked.result(20)
    with pytest.raises(ServerUnreachable):
        client.run(tasks.double, 1)
    assert time.monotonic() - started < 10
    client.close()


def _durable_server(folder: Path) -> Server:
    return Server(folder / "logs", str(folder / "server.sock"), "AF_UNIX", b"of this test", 2, store=folder / "jobs.db")


def _kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.close()


def test_a_map_goes_on_after_its_durable_server_was_killed_and_started_again(tmp_path: Path) -> None:
    found: list[object] = []
    client = Client(str(tmp_path / "server.sock"), None, b"of this test")
    with client:
        with _durable_server(tmp_path) as server:
            done = client.map(tasks.double, range(10))
            held = client.submit(tasks.hold, str(tmp_path))
            called: list[object] = []
            held.add_done_callback(called.append)
            wait_until((tmp_path / "holding").exists)
            caller = threading.Thread(target=lambda: found.append(client.map(tasks.double, range(200))))
            caller.start()
            wait_until(lambda: client._get_connection().pending.takers)
            _kill(server)
        (tmp_path / "holding.go").touch()
        wait_until(lambda: client._get_connection().is_away)
        with _durable_server(tmp_path):
            assert client.run(tasks.double, 4) == 8  # begun while nobody was there, or as soon as somebody was
            caller.join(40)
            assert held.result(40) == "holding"
            wait_until(lambda: called == [held])
    assert done == [2 * number for number in range(10)]
    assert found == [[2 * number for number in range(200)]]


def test_what_is_submitted_while_a_durable_server_stops_runs_on_the_next_one(tmp_path: Path) -> None:
    def hold_on_stubbornly(folder: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that the server needs its grace time to stop
        tasks.block(folder)

    with Client(str(tmp_path / "server.sock"), None, b"of this test") as client:
        with _durable_server(tmp_path) as server:
            stubborn = client.options(at_most_once=True).submit(hold_on_stubbornly, str(tmp_path))
            wait_until((tmp_path / "blocked").exists)
            server.stop()
            wait_until(lambda: not (tmp_path / "server.sock").exists())  # it listens no more, and its tasks are ended
            future, unwanted = client.submit(tasks.double, 4), client.submit(tasks.block, str(tmp_path), "unwanted")
            answers: list[bool] = []
            cancelling = threading.Thread(target=lambda: answers.append(client.cancel(unwanted.task_id)))
            cancelling.start()
        with _durable_server(tmp_path):
            assert future.result(40) == 8
            with pytest.raises(TaskLost):
                stubborn.result(40)
            cancelling.join(40)
            assert answers == [True], "a cancel of what was passed over must not be told that there is no such task"


def test_an_asyncio_client_goes_on_with_its_durable_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(str(tmp_path / "server.sock"), None, b"of this test") as client:
            first = _durable_server(tmp_path).start()
            held = await client.submit(tasks.hold, str(tmp_path))
            while not (tmp_path / "holding").exists():
                await asyncio.sleep(0.01)
            await asyncio.to_thread(_kill, first)
            (tmp_path / "holding.go").touch()
            waiting = asyncio.ensure_future(client.map(tasks.double, range(20)))
            second = await asyncio.to_thread(_durable_server(tmp_path).start)
            try:
                assert await waiting == [2 * number for number in range(20)]
                assert await held == "holding"
            finally:
                await asyncio.to_thread(second.stop)
                await asyncio.to_thread(second.join)
                await asyncio.to_thread(second.close)

    asyncio.run(main())


EXITING = """
    import os, signal, sys
    from palpable import Client

    client = Client(sys.argv[1], None, b"of this test")
    future = client.submit(abs, -3)
    assert future.result() == 3
    waiting = client.submit(__import__("time").sleep, 600)
    waiting.add_done_callback(print)
    client.get_status()
    os.kill(int(sys.argv[2]), signal.SIGKILL)
    while not client._get_connection().is_away:
        pass
    client.submit(abs, -4)
"""


def test_a_program_that_ends_while_the_server_is_away_ends(tmp_path: Path) -> None:
    server = _durable_server(tmp_path).start()
    started = time.monotonic()
    try:
        assert run_script(tmp_path, EXITING, str(server.address), str(server.pid)) == ""
    finally:
        server.close()
        Path(str(server.address)).unlink()  # it was killed, and could not
    assert time.monotonic() - started < 20
