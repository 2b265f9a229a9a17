"""A zygote that dies is replaced, and every task it held ends with a result."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palpable import Client, Server
from palpable.units.task_exceptions import PalpableError
from support import tasks
from support.processes import is_alive, task_processes, wait_gone, zygote_processes
from support.wait import wait_until


def _kill_zygotes() -> list[int]:
    pids = [zygote.pid for zygote in zygote_processes()]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


def test_tasks_run_again_after_all_zygotes_were_killed(client: Client) -> None:
    assert client.run(tasks.double, 1) == 2
    killed = _kill_zygotes()
    wait_gone(killed)
    assert client.map(tasks.double, range(10)) == [number * 2 for number in range(10)]
    assert not {zygote.pid for zygote in zygote_processes()} & set(killed)


def test_a_task_whose_zygote_was_killed_ends_with_a_result(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.block, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    pid = int((tmp_path / "blocked").read_text())
    _kill_zygotes()
    with pytest.raises(PalpableError) as caught:
        future.result(timeout=20)
    assert type(caught.value).__name__ in {"TaskLost", "TaskCrashed", "TaskKilledByMonitoringError"}
    wait_gone([pid])
    assert client.run(tasks.double, 2) == 4


def test_tasks_that_were_queued_run_on_the_new_zygotes(lone_client: Client, tmp_path: Path) -> None:
    first = lone_client.submit(tasks.block, str(tmp_path))
    queued = [lone_client.submit(tasks.double, number) for number in range(10)]
    wait_until((tmp_path / "blocked").exists)
    _kill_zygotes()
    with pytest.raises(PalpableError):
        first.result(timeout=20)
    assert [future.result(timeout=20) for future in queued] == [number * 2 for number in range(10)]


def test_zygotes_killed_in_the_middle_of_a_map_leave_no_call_hanging(client: Client) -> None:
    for _ in range(3):
        futures = [client.submit(tasks.double, number) for number in range(50)]
        _kill_zygotes()
        for number, future in enumerate(futures):
            try:
                assert future.result(timeout=20) == number * 2
            except PalpableError:
                continue
    assert client.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("kind", ["a double fork", "a stubborn child"])
def test_the_tree_of_a_task_goes_even_when_its_zygote_was_killed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tree").mkdir()
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=1) as server, server.client() as client:
        future = client.submit(tasks.start_tree, kind, str(tmp_path / "tree"), "block")
        wait_until((tmp_path / "tree" / "task").exists)
        pids = [int(path.read_text()) for path in (tmp_path / "tree").iterdir()]
        _kill_zygotes()
        with pytest.raises(PalpableError):
            future.result(timeout=20)
    assert not [pid for pid in pids if is_alive(pid)]


def test_an_idle_task_process_that_is_killed_is_replaced(lone_client: Client) -> None:
    for process in wait_until(task_processes):
        process.kill()
    assert lone_client.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]


def _server_log(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.log"))


@contextmanager
def _no_file_descriptor_free(pid: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_zygote_that_dies_while_no_file_descriptor_is_free_is_replaced_when_one_is(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with Server(logging_folder=str(logs), num_workers=1) as server, server.client() as client:
        assert client.run(tasks.double, 1) == 2
        assert server.pid is not None
        with _no_file_descriptor_free(server.pid):
            # Until a killed zygote has ended its processes live: one could take the task, and be killed with it.
            wait_gone(_kill_zygotes())
            wait_until(lambda: "has left behind is not ended yet" in _server_log(logs))
        assert client.submit(tasks.double, 2).result(timeout=20) == 4


def test_a_kept_process_that_no_pipes_can_be_made_for_is_replaced_and_its_task_runs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with Server(logging_folder=str(logs), num_workers=1, isolation="worker") as server, server.client() as client:
        wait_until(lambda: client.get_status()["processes"]["idle"] == 2)
        assert server.pid is not None
        with _no_file_descriptor_free(server.pid):
            future = client.submit(tasks.double, 2)
            wait_until(lambda: "there is no room for its pipes" in _server_log(logs))
        assert future.result(timeout=20) == 4
