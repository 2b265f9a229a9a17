"""Kill means kill: however a task ends, its whole process tree is gone."""

from __future__ import annotations

import concurrent.futures.process
import os
import signal
import time
from pathlib import Path

import pytest

from palpable import Client, Server, TaskFuture
from palpable.units.task_exceptions import TaskCancelled, TaskKilledByQuitSignal, TaskTimeout
from support import tasks
from support.processes import is_alive, wait_gone
from support.wait import wait_until


def _pids_in(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.iterdir() if path.is_file()]


def _start(client: Client, folder: Path, kind: str, ending: str = "block", **options: bool) -> TaskFuture[str]:
    folder.mkdir()
    return client.submit(tasks.start_tree, kind, str(folder), ending, **options)


def _wait_started(folder: Path) -> list[int]:
    wait_until((folder / "task").exists, timeout_seconds=20)
    pids = _pids_in(folder)
    assert len(pids) >= 2
    return pids


@pytest.mark.parametrize("kind", tasks.TREES)
def test_nothing_outlives_a_task_that_returned(client: Client, tmp_path: Path, kind: str) -> None:
    future = _start(client, tmp_path / "tree", kind, "return")
    assert future.result(timeout=20) == "returned"
    wait_gone(_pids_in(tmp_path / "tree"))


@pytest.mark.parametrize("kind", tasks.TREES)
def test_nothing_outlives_a_task_that_crashed(client: Client, tmp_path: Path, kind: str) -> None:
    future = _start(client, tmp_path / "tree", kind, "crash")
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        future.result(timeout=20)
    wait_gone(_pids_in(tmp_path / "tree"))


@pytest.mark.parametrize("kind", tasks.TREES)
def test_nothing_outlives_a_task_that_was_cancelled(client: Client, tmp_path: Path, kind: str) -> None:
    future = _start(client, tmp_path / "tree", kind)
    pids = _wait_started(tmp_path / "tree")
    assert client.cancel(future.task_id)
    wait_gone(pids)


@pytest.mark.parametrize("kind", tasks.TREES)
def test_nothing_outlives_a_task_over_its_timeout(client: Client, tmp_path: Path, kind: str) -> None:
    future = _start(client.options(timeout_seconds=1.0), tmp_path / "tree", kind)
    pids = _wait_started(tmp_path / "tree")
    with pytest.raises(TaskTimeout):
        future.result(timeout=20)
    wait_gone(pids)


@pytest.mark.parametrize("kind", tasks.TREES)
def test_nothing_outlives_the_server(tmp_path: Path, kind: str) -> None:
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=1) as server, server.client() as client:
        future = _start(client, tmp_path / "tree", kind)
        pids = _wait_started(tmp_path / "tree")
        server.stop()
        with pytest.raises(TaskKilledByQuitSignal):
            future.result(timeout=20)
    assert not [pid for pid in pids if is_alive(pid)]


@pytest.mark.parametrize("kind", ["a child", "a pool"])
def test_a_task_that_ignores_sigterm_is_killed_all_the_same(client: Client, tmp_path: Path, kind: str) -> None:
    future = _start(client, tmp_path / "tree", kind, ignores_sigterm=True)
    pids = _wait_started(tmp_path / "tree")
    assert future.cancel()
    wait_gone(pids)


def test_a_cancelled_task_in_isolation_worker_takes_its_process_with_it(client: Client, tmp_path: Path) -> None:
    future = _start(client.options(isolation="worker"), tmp_path / "tree", "a child")
    pids = _wait_started(tmp_path / "tree")
    assert future.cancel()
    wait_gone(pids)
    assert client.options(isolation="worker").run(tasks.double, 4) == 8


def test_a_task_has_time_to_clean_up_after_sigterm(client: Client, tmp_path: Path) -> None:
    def clean_up_on_sigterm(folder: str) -> None:
        import signal
        import sys

        def clean_up(*_: object) -> None:
            (Path(folder) / "cleaned").touch()
            sys.exit(0)

        signal.signal(signal.SIGTERM, clean_up)
        tasks.block(folder)

    future = client.submit(clean_up_on_sigterm, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    assert future.cancel()
    wait_until((tmp_path / "cleaned").exists)


def test_the_servers_own_timeout_holds_for_every_task(tmp_path: Path) -> None:
    with (
        Server(logging_folder=str(tmp_path / "logs"), num_workers=1, task_timeout_seconds=0.5) as server,
        server.client() as client,
    ):
        with pytest.raises(TaskTimeout) as caught:
            client.run(tasks.block, str(tmp_path))
        assert caught.value.elapsed_seconds == pytest.approx(0.5, abs=0.4)
        assert "0.5" in str(caught.value)
        assert client.run(tasks.double, 1) == 2


def test_a_task_may_have_a_longer_timeout_than_the_servers(tmp_path: Path) -> None:
    with (
        Server(logging_folder=str(tmp_path / "logs"), num_workers=1, task_timeout_seconds=0.2) as server,
        server.client() as client,
    ):
        assert client.options(timeout_seconds=30).run(tasks.burn_cpu, 0.4) >= 0.4


def test_a_timeout_takes_an_idle_task_as_well_as_a_busy_one(client: Client, tmp_path: Path) -> None:
    brief = client.options(timeout_seconds=0.4)
    futures = [brief.submit(tasks.block, str(tmp_path)), brief.submit(tasks.burn_cpu, 100.0)]
    for future in futures:
        with pytest.raises(TaskTimeout):
            future.result(timeout=20)


def test_waiting_in_the_queue_does_not_count_for_the_timeout(lone_client: Client, tmp_path: Path) -> None:
    first = lone_client.submit(tasks.hold, str(tmp_path))
    second = lone_client.options(timeout_seconds=0.5).submit(tasks.double, 4)
    wait_until((tmp_path / "holding").exists)
    start = time.monotonic()
    wait_until(lambda: time.monotonic() - start > 0.7)
    (tmp_path / "holding.go").touch()
    assert second.result(timeout=20) == 8
    assert first.result(timeout=20) == "holding"


def test_cancel_ends_a_running_task_and_says_so(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.block, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    pid = int((tmp_path / "blocked").read_text())
    assert future.cancel() is True
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=20)
    wait_gone([pid])


def test_a_queued_task_that_is_cancelled_never_runs(lone_client: Client, tmp_path: Path) -> None:
    first = lone_client.submit(tasks.hold, str(tmp_path))
    second = lone_client.submit(tasks.announce, str(tmp_path), "never")
    wait_until((tmp_path / "holding").exists)
    assert lone_client.cancel(second.task_id) is True
    (tmp_path / "holding.go").touch()
    assert first.result(timeout=20) == "holding"
    assert lone_client.run(tasks.double, 1) == 2
    assert not (tmp_path / "never").exists()


def test_a_task_cancelled_by_another_client_raises_task_cancelled(
    server: Server, client: Client, tmp_path: Path
) -> None:
    future = client.submit(tasks.block, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    with server.client() as other:
        assert other.cancel(future.task_id) is True
    with pytest.raises(concurrent.futures.CancelledError) as caught:
        future.result(timeout=20)
    assert isinstance(caught.value, TaskCancelled)


def test_cancelling_what_has_ended_or_never_was_changes_nothing(client: Client) -> None:
    future = client.submit(tasks.double, 2)
    assert future.result(timeout=20) == 4
    assert future.cancel() is False
    assert client.cancel(future.task_id) is False
    assert client.cancel("no-such-task") is False
    assert future.result() == 4


def test_a_killed_task_gives_its_slot_to_the_next(lone_client: Client, tmp_path: Path) -> None:
    for number in range(5):
        future = lone_client.submit(tasks.block, str(tmp_path), f"blocked-{number}")
        wait_until((tmp_path / f"blocked-{number}").exists)
        assert future.cancel()
    assert lone_client.run(tasks.double, 5) == 10


def test_the_other_tasks_do_not_notice_a_kill(client: Client, tmp_path: Path) -> None:
    steady = client.submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    for number in range(3):
        victim = client.submit(tasks.block, str(tmp_path), f"victim-{number}")
        wait_until((tmp_path / f"victim-{number}").exists)
        assert victim.cancel()
    assert is_alive(int((tmp_path / "holding").read_text()))
    (tmp_path / "holding.go").touch()
    assert steady.result(timeout=20) == "holding"


def test_a_task_that_kills_its_own_group_ends_alone(client: Client, tmp_path: Path) -> None:
    def kill_group(_: object = None) -> None:
        os.killpg(0, 9)

    future = client.submit(kill_group)
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        future.result(timeout=20)
    assert client.run(tasks.double, 5) == 10


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_an_answer_that_came_in_time_counts_though_the_server_was_stopped_and_reads_it_late(
    client: Client, tmp_path: Path, isolation: str
) -> None:
    server_pid = client.get_status()["pid"]
    future = client.options(isolation=isolation, timeout_seconds=1.0).submit(tasks.hold, str(tmp_path), isolation)
    wait_until((tmp_path / isolation).exists)
    began_at = time.monotonic()
    os.kill(server_pid, signal.SIGSTOP)
    try:
        (tmp_path / f"{isolation}.go").touch()
        wait_until(lambda: time.monotonic() > began_at + 2.5)  # the time of the task is over: that is the fact
    finally:
        os.kill(server_pid, signal.SIGCONT)
    assert future.result(20) == isolation
