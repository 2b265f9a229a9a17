"""The server of the original: how its users make, subclass, start and stop it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable.procedures.procedure import Procedure
from palpable.procedures.run_function import RunFunction
from palpable.servants.server import Server
from palpable.units.client import Client
from palpable.units.task_exceptions import TaskKilledByQuitSignal, TaskTimeout
from support import tasks
from support.wait import wait_until

AUTHKEY = b"a key of our own"


def _free_port() -> int:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port: int = placeholder.getsockname()[1]
        return port


@pytest.fixture(params=["AF_INET", "AF_UNIX"])
def address_and_family(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """An address of each family in turn."""
    yield (("127.0.0.1", _free_port()) if request.param == "AF_INET" else str(tmp_path / "socket")), request.param


class OurServer(Server):
    """Settings in a no-argument `__init__`, and a `close` that takes the logs away."""

    folder = ""
    address_here: Any = None

    def __init__(self) -> None:
        super().__init__(
            logging_folder=self.folder,
            address=self.address_here,
            family="AF_INET",
            authkey=AUTHKEY,
            num_workers=2,
            task_timeout_seconds=30,
            result_retention_capacity=1000,
            result_retention_seconds=60,
        )

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._logging_folder)


class OurClient(Client):
    """Settings in a no-argument `__init__`."""

    def __init__(self) -> None:
        super().__init__(address=OurServer.address_here, family="AF_INET", authkey=AUTHKEY)


@pytest.fixture
def our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OurServer, "folder", str(tmp_path / "our logs"))
    monkeypatch.setattr(OurServer, "address_here", ("127.0.0.1", _free_port()))


def test_subclasses_of_server_and_client_work_together(our_settings: None) -> None:
    with OurServer():
        client = OurClient()
        assert client.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]
        assert client.run(tasks.double, 21) == 42
        client.close()


def test_a_close_that_removes_the_logging_folder_finds_it_complete_and_unused(our_settings: None) -> None:
    with OurServer() as server:
        client = OurClient()
        client.run(tasks.print_line, "hello")
        client.close()
        assert os.listdir(server._logging_folder)
    assert not os.path.exists(OurServer.folder)


def test_a_subclassed_server_step_by_step(our_settings: None) -> None:
    server = OurServer()
    assert server.start() is server
    assert server.is_listening
    client = OurClient()
    assert client.run(tasks.double, 1) == 2
    server.stop()
    server.join()
    server.close()
    client.close()
    assert not os.path.exists(OurServer.folder)


def test_a_client_inside_a_task_may_be_one_of_a_subclass(our_settings: None) -> None:
    address = OurServer.address_here

    def parent(number: int) -> list[int]:
        class InnerClient(Client):
            def __init__(self) -> None:
                super().__init__(address=address, family="AF_INET", authkey=AUTHKEY)

        with InnerClient() as client:
            return client.map(tasks.double, range(number))

    with OurServer():
        client = OurClient()
        assert client.map(parent, [3] * 4) == [[0, 2, 4]] * 4
        client.close()


def test_all_parameters_by_position(address_and_family: tuple[Any, str], tmp_path: Path) -> None:
    address, family = address_and_family
    with Server(str(tmp_path / "logs"), address, family, AUTHKEY, 1, 100, 1000, 60):
        client = Client(address, family, AUTHKEY)
        assert client.map(tasks.double, [1, 2]) == [2, 4]
        client.close()


def test_all_parameters_by_keyword(address_and_family: tuple[Any, str], tmp_path: Path) -> None:
    address, family = address_and_family
    with Server(
        logging_folder=str(tmp_path / "logs"),
        address=address,
        family=family,
        authkey=AUTHKEY,
        num_workers=1,
        task_timeout_seconds=10800,
        result_retention_capacity=100000,
        result_retention_seconds=60,
    ):
        client = Client(address=address, family=family, authkey=AUTHKEY)
        assert client.run(tasks.double, 1) == 2
        client.close()


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    with Server(str(tmp_path / "logs"), str(path), "AF_UNIX", AUTHKEY, 1):
        client = Client(str(path), "AF_UNIX", AUTHKEY)
        assert client.run(tasks.double, 1) == 2
        client.close()
    assert not path.exists()


def test_a_server_can_be_started_again_at_the_same_address(address_and_family: tuple[Any, str], tmp_path: Path) -> None:
    address, family = address_and_family
    for _ in range(2):
        with Server(str(tmp_path / "logs"), address, family, AUTHKEY, 1):
            client = Client(address, family, AUTHKEY)
            assert client.run(tasks.double, 1) == 2
            client.close()


def test_the_status_tells_of_workers_queue_and_results(tmp_path: Path) -> None:
    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 2) as server:
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        for number in range(2):
            client.submit(tasks.block, str(tmp_path), f"blocked-{number}")
        client.submit(tasks.double, 1)
        wait_until(lambda: (tmp_path / "blocked-0").exists() and (tmp_path / "blocked-1").exists())
        for status in (server.status, client.get_status()):
            assert status["task_queue_size"] == 1
            assert status["result_cache_size"] == 0
            assert len(status["worker_status"]) == 2
            names = set()
            pids = set()
            for worker in status["worker_status"]:
                names.add(worker["name"])
                for process in worker["processes"]:
                    assert "cpu" in str(sorted(process)) and "memory" in str(sorted(process))
                    pids.add(process.get("pid"))
            assert len(names) == 2
            assert len(pids) == 2
        client.close()


def test_finished_results_count_in_the_result_cache(tmp_path: Path) -> None:
    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 1) as server:
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        result = client.run_procedure(RunFunction(tasks.double, 4), 0)
        wait_until(lambda: server.status["result_cache_size"] == 1)
        assert client.query_result(result.task_id).data == 8
        wait_until(lambda: server.status["result_cache_size"] == 0)
        client.close()


def test_stop_kills_running_tasks_with_task_killed_by_quit_signal(tmp_path: Path) -> None:
    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 1) as server:
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        future = client.submit(tasks.block, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
        server.stop()
        with pytest.raises(TaskKilledByQuitSignal):
            future.result(timeout=20)
        client.close()


def test_a_task_over_the_timeout_is_killed_and_a_short_one_is_not(tmp_path: Path) -> None:
    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 2, 0.5):
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        with pytest.raises(TaskTimeout):
            client.run(tasks.block, str(tmp_path))
        assert client.run(tasks.double, 2) == 4
        client.close()


def test_results_beyond_the_capacity_are_dropped_oldest_first(tmp_path: Path) -> None:
    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 1, result_retention_capacity=3):
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        ids = []
        for number in range(6):
            task_id = client.run_procedure(RunFunction(tasks.double, number), 0).task_id
            client.result(task_id, timeout_seconds=20)
            ids.append(task_id)
        assert [client.query_result(task_id) for task_id in ids[:3]] == [None] * 3
        assert [client.query_result(task_id).data for task_id in ids[3:]] == [6, 8, 10]
        client.close()


def test_results_are_dropped_after_the_retention_time(tmp_path: Path) -> None:
    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 1, result_retention_seconds=0.5):
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        task_id = client.run_procedure(RunFunction(tasks.double, 4), 0).task_id
        assert client.result(task_id, timeout_seconds=20) == 8
        wait_until(lambda: client.get_status()["result_cache_size"] == 0)
        assert client.query_result(task_id) is None
        client.close()


def test_what_tasks_say_lands_under_the_logging_folder(tmp_path: Path) -> None:
    class Speak(Procedure):
        def run(self, messenger: Any) -> None:
            messenger.debug("a detail")
            messenger.info("all is well")
            messenger.warning("take care")
            messenger.error("that went wrong")
            messenger.print("one", 2, "three")

    with Server(str(tmp_path / "logs"), str(tmp_path / "socket"), "AF_UNIX", AUTHKEY, 1):
        client = Client(str(tmp_path / "socket"), "AF_UNIX", AUTHKEY)
        assert client.run_procedure(Speak(), -1).is_successful
        client.close()
    text = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*") if path.is_file())
    for words in ("a detail", "all is well", "take care", "that went wrong", "one 2 three"):
        assert words in text
