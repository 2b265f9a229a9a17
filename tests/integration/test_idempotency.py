"""The same idempotency key is the same task, whoever submits it, and however often."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from palpable import AsyncClient, Client, RunFunction, Server
from support import tasks
from support.wait import wait_until


def test_it_runs_once_and_gives_its_result_to_all(server: Server, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with server.client() as other:
        views = [each.options(idempotency_key="order 17") for each in (client, other, client)]
        futures = [view.submit(tasks.append_line, str(path), "ran") for view in views]
        assert [future.result(timeout=20) for future in futures] == ["ran"] * 3
        assert len({future.task_id for future in futures}) == 1
        assert views[0].run(repr, None) == "ran", "the result is kept for whoever comes later"
    assert path.read_text() == "ran\n"


def test_clients_that_wait_for_it_together_are_all_told(server: Server, client: Client, tmp_path: Path) -> None:
    with server.client() as second, server.client() as third:
        futures = [
            each.options(idempotency_key="k").submit(tasks.hold, str(tmp_path)) for each in (client, second, third)
        ]
        wait_until((tmp_path / "holding").exists)
        # Each has submitted it by now: an answer to a later question of the same connection says so.
        for each in (client, second, third):
            each.get_status()
        (tmp_path / "holding.go").touch()
        assert [future.result(timeout=20) for future in futures] == ["holding"] * 3


def test_a_client_that_goes_takes_nothing_from_the_others(server: Server, client: Client, tmp_path: Path) -> None:
    with server.client() as brief:
        brief.options(idempotency_key="k").submit(tasks.hold, str(tmp_path))
        wait_until((tmp_path / "holding").exists)
        future = client.options(idempotency_key="k").submit(tasks.hold, str(tmp_path))
        client.get_status()
    (tmp_path / "holding.go").touch()
    assert future.result(timeout=20) == "holding"


def test_threads_that_submit_it_at_once_share_one_task(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "runs"

    def call(number: int) -> str:
        view = client.options(idempotency_key=f"order {number // 8}")
        return view.submit(tasks.append_line, str(path), str(number // 8)).result(timeout=30)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(80))) == [str(number // 8) for number in range(80)]
    assert sorted(path.read_text().split(), key=int) == [str(number) for number in range(10)]


def test_asyncio_calls_share_it_too(server: Server, tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with server_client(server) as client:
            view = client.options(idempotency_key="k")
            return await asyncio.gather(*(view.run(tasks.half, 6) for _ in range(5)))

    def server_client(server: Server) -> AsyncClient:
        return AsyncClient(server.address, server.family, server.authkey)

    assert asyncio.run(main()) == [3] * 5


def test_an_error_is_given_again_too(client: Client) -> None:
    view = client.options(idempotency_key="odd")
    for _ in range(2):
        with pytest.raises(tasks.OddNumber, match="3 is odd"):
            view.run(tasks.half, 3)


def test_procedures_have_keys_too(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    view = client.options(idempotency_key="procedure")
    results = [
        view.run_procedure(RunFunction(tasks.append_line, str(path), "ran"), waiting_seconds=-1) for _ in range(2)
    ]
    assert [result.data for result in results] == ["ran", "ran"]
    assert client.query_result(results[0].task_id) is not None
    assert client.query_result(results[0].task_id) is not None, "a task with a key is not taken"
    assert path.read_text() == "ran\n"


def test_another_key_is_another_task(client: Client) -> None:
    assert client.options(idempotency_key="a").run(tasks.double, 1) == 2
    assert client.options(idempotency_key="b").run(tasks.double, 2) == 4


def test_sub_tasks_may_have_keys(client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> tuple[str, str]:
        from palpable import current_task

        view = current_task().options(idempotency_key="sub")
        path = f"{folder}/runs"
        future = view.submit(tasks.append_line, path, "ran")
        return future.result(), view.run_procedure(RunFunction(tasks.append_line, path, "again"))

    assert client.run(parent, str(tmp_path)) == ("ran", "ran")
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_a_parent_that_is_run_again_finds_the_sub_task_of_its_key(client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> str:
        from palpable import current_task

        messenger = current_task()
        future = messenger.options(idempotency_key="sub").submit(tasks.hold, folder)
        if messenger.attempt == 1:
            future.result()  # longer than the parent may take
        (Path(folder) / "holding.go").touch()
        return future.result()

    # The second attempt cannot end unless the sub-task has survived the first.
    assert client.options(retries=1, backoff_seconds=0, timeout_seconds=1.5).run(parent, str(tmp_path)) == "holding"


def test_the_key_is_shown(client: Client, tmp_path: Path) -> None:
    future = client.options(idempotency_key="order 17").submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    assert [info.idempotency_key for info in client.tasks("running")] == ["order 17"]
    (tmp_path / "holding.go").touch()
    future.result(timeout=20)


def _durable_server(folder: Path) -> Server:
    return Server(folder / "logs", str(folder / "server.sock"), "AF_UNIX", b"key", 2, store=folder / "jobs.db")


def _kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.close()


def test_all_who_wait_for_it_are_told_by_the_next_server_when_theirs_was_killed(tmp_path: Path) -> None:
    with (
        Client(str(tmp_path / "server.sock"), None, b"key") as first,
        Client(str(tmp_path / "server.sock"), None, b"key") as second,
    ):
        with _durable_server(tmp_path) as server:
            views = [each.options(idempotency_key="k") for each in (first, second, first)]
            futures = [view.submit(tasks.hold, str(tmp_path)) for view in views]
            wait_until((tmp_path / "holding").exists)
            for each in (first, second):
                each.get_status()
            _kill(server)
        (tmp_path / "holding.go").touch()
        with _durable_server(tmp_path):
            assert [future.result(timeout=40) for future in futures] == ["holding"] * 3


def test_a_parent_that_was_interrupted_finds_the_sub_task_of_its_key(tmp_path: Path) -> None:
    def parent(folder: str) -> str:
        from palpable import current_task

        return current_task().options(idempotency_key="sub").run(tasks.hold, folder)

    with _durable_server(tmp_path) as server, server.client() as client:
        task_id = client.run_procedure(RunFunction(parent, str(tmp_path)), 0.001).task_id
        wait_until((tmp_path / "holding").exists)
        _kill(server)
    (tmp_path / "holding.go").touch()
    with _durable_server(tmp_path) as server, server.client() as client:
        assert client.result(task_id, 30) == "holding"
        assert [info.attempt for info in client.tasks() if info.idempotency_key] == [2], "it was not made anew"


def test_after_a_restart_the_key_is_still_known(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    for _ in range(2):
        with Server(store=str(tmp_path / "store.db"), num_workers=1) as server, server.client() as client:
            view = client.options(idempotency_key="order 17")
            assert view.submit(tasks.append_line, str(path), "ran").result(timeout=20) == "ran"
    assert path.read_text() == "ran\n"
