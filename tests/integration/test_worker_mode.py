"""Isolation "worker": one process for many tasks, in batches, and still only the guilty task fails."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable import Client, RunFunction, Server, current_task
from palpable.units.task_exceptions import TaskCrashed, TaskTimeout
from support import tasks
from support.processes import wait_gone
from support.wait import wait_until


@pytest.fixture
def warm(client: Client) -> Client:
    """A client whose tasks share processes, on two workers."""
    return client.options(isolation="worker")


@pytest.fixture
def lone_warm(lone_client: Client) -> Client:
    """The same on one worker."""
    return lone_client.options(isolation="worker")


@pytest.fixture
def warm_server(tmp_path: Path) -> Iterator[Server]:
    """A server whose default is isolation "worker"."""
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=2, isolation="worker") as server:
        yield server


def test_the_servers_own_isolation_is_the_default_of_its_clients(warm_server: Server) -> None:
    with warm_server.client() as client:
        assert len({client.run(tasks.own_pid, None) for _ in range(20)}) <= 2
        fresh = client.options(isolation="task")
        assert len({fresh.run(tasks.own_pid, None) for _ in range(10)}) == 10


def test_thousands_of_small_tasks_come_back_in_order(warm: Client) -> None:
    futures = [warm.submit(tasks.double, number) for number in range(5000)]
    assert [future.result(timeout=30) for future in futures] == [number * 2 for number in range(5000)]
    assert warm.map(tasks.double, range(50_000)) == [number * 2 for number in range(50_000)]


def test_map_takes_any_chunksize(warm: Client) -> None:
    for chunksize in (1, 7, 1000):
        assert warm.map(tasks.double, range(100), chunksize=chunksize) == [number * 2 for number in range(100)]
    assert warm.map(tasks.double, []) == []


def test_map_takes_params_of_any_kind(warm: Client) -> None:
    expected = [2 * number for number in range(50)]
    for params in (range(50), tuple(range(50)), list(range(50)), iter(range(50)), dict.fromkeys(range(50))):
        assert warm.map(tasks.double, params, chunksize=7) == expected


def test_a_failure_inside_a_chunk_is_raised_as_its_own_type(warm: Client) -> None:
    with pytest.raises(tasks.OddNumber) as caught:
        warm.map(tasks.half, [*range(0, 200, 2), 7, *range(0, 200, 2)])
    assert caught.value.number == 7
    assert "in half" in str(caught.value.__cause__)


def test_a_crash_fails_only_the_task_that_was_running(lone_warm: Client) -> None:
    before = [lone_warm.submit(tasks.double, number) for number in range(200)]
    guilty = lone_warm.submit(tasks.exit_at_once, 3)
    after = [lone_warm.submit(tasks.double, number) for number in range(200)]
    with pytest.raises(TaskCrashed) as caught:
        guilty.result(timeout=20)
    assert caught.value.exit_status == 3
    for futures in (before, after):
        assert [future.result(timeout=20) for future in futures] == [number * 2 for number in range(200)]


def test_many_crashes_among_many_tasks_fail_exactly_the_guilty(warm: Client) -> None:
    futures = [
        warm.submit(tasks.exit_at_once, 1) if number % 25 == 0 else warm.submit(tasks.double, number)
        for number in range(500)
    ]
    for number, future in enumerate(futures):
        if number % 25 == 0:
            with pytest.raises(TaskCrashed):
                future.result(timeout=30)
        else:
            assert future.result(timeout=30) == number * 2


def test_a_task_that_crashed_ran_once(lone_warm: Client, tmp_path: Path) -> None:
    def count_and_crash(folder: str) -> None:
        with open(os.path.join(folder, "runs"), "a") as file:
            file.write("x")
        os._exit(1)

    others = [lone_warm.submit(tasks.double, number) for number in range(50)]
    guilty = lone_warm.submit(count_and_crash, str(tmp_path))
    with pytest.raises(TaskCrashed):
        guilty.result(timeout=20)
    assert [future.result(timeout=20) for future in others] == [number * 2 for number in range(50)]
    assert (tmp_path / "runs").read_text() == "x"


def test_no_task_of_a_batch_runs_twice_when_one_of_them_crashes(lone_warm: Client, tmp_path: Path) -> None:
    def append(folder: str, number: int) -> None:
        if number == 50:
            os._exit(1)
        descriptor = os.open(os.path.join(folder, "runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)

    futures = [lone_warm.submit(append, str(tmp_path), number) for number in range(100)]
    for number, future in enumerate(futures):
        if number == 50:
            with pytest.raises(TaskCrashed):
                future.result(timeout=20)
        else:
            future.result(timeout=20)
    runs = [int(line) for line in (tmp_path / "runs").read_text().split()]
    assert sorted(runs) == [number for number in range(100) if number != 50]


def test_small_tasks_do_not_wait_behind_a_slow_one_of_their_batch(warm: Client, tmp_path: Path) -> None:
    assert warm.map(tasks.double, range(2000)) == [number * 2 for number in range(2000)]  # batches have grown by now
    quick_before = [warm.submit(tasks.double, number) for number in range(100)]
    slow = warm.submit(tasks.hold, str(tmp_path))
    start = time.monotonic()
    quick_after = [warm.submit(tasks.double, number) for number in range(100)]
    for number, future in enumerate(quick_before + quick_after):
        assert future.result(timeout=10) == number % 100 * 2
    assert time.monotonic() - start < 5
    assert not slow.done()
    (tmp_path / "holding.go").touch()
    assert slow.result(timeout=20) == "holding"


def test_a_task_that_waits_hands_back_the_rest_of_its_batch(lone_warm: Client) -> None:
    def parent(number: int) -> int:
        return current_task().run(tasks.double, number)

    assert lone_warm.map(tasks.double, range(2000)) == [number * 2 for number in range(2000)]
    futures = [lone_warm.submit(parent, number) for number in range(100)]
    assert [future.result(timeout=30) for future in futures] == [number * 2 for number in range(100)]


def test_sub_tasks_go_deep_in_isolation_worker_with_one_worker(lone_warm: Client) -> None:
    assert lone_warm.run(tasks.fib, 8) == 21


def test_a_timeout_takes_only_the_task_over_its_time(lone_warm: Client, tmp_path: Path) -> None:
    others = [lone_warm.submit(tasks.double, number) for number in range(20)]
    slow = lone_warm.options(timeout_seconds=0.4).submit(tasks.block, str(tmp_path))
    others += [lone_warm.submit(tasks.double, number) for number in range(20)]
    with pytest.raises(TaskTimeout):
        slow.result(timeout=20)
    assert [future.result(timeout=20) for future in others] == [number * 2 for number in range(20)] * 2
    wait_gone([int((tmp_path / "blocked").read_text())])


def test_cancelling_one_task_of_a_batch_leaves_the_others(lone_warm: Client, tmp_path: Path) -> None:
    holding = lone_warm.submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    futures = [lone_warm.submit(tasks.double, number) for number in range(20)]
    assert futures[7].cancel()
    (tmp_path / "holding.go").touch()
    assert holding.result(timeout=20) == "holding"
    assert [future.result(timeout=20) for future in futures if not future.cancelled()] == [
        number * 2 for number in range(20) if number != 7
    ]


def test_both_isolations_share_the_workers(client: Client, warm: Client) -> None:
    futures = []
    for number in range(100):
        futures += [client.submit(tasks.double, number), warm.submit(tasks.double, number)]
    assert [future.result(timeout=30) for future in futures] == [number // 2 * 2 for number in range(200)]


def test_a_worker_process_that_idles_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=2, isolation="worker") as server:
        with server.client() as client:
            pid = client.run(tasks.own_pid, None)
    wait_gone([pid], timeout_seconds=0.5)


def test_the_output_of_a_kept_process_goes_to_the_task_that_wrote_it(lone_client: Client, lone_warm: Client) -> None:
    futures = [lone_warm.submit(tasks.print_line, f"line {number}") for number in range(300)]
    for future in futures:
        future.result(timeout=20)
    for number in (0, 1, 150, 299):
        assert lone_client.logs(futures[number].task_id) == f"line {number}\n"


def test_a_procedure_result_in_isolation_worker_says_how_it_went(lone_warm: Client) -> None:
    result = lone_warm.run_procedure(RunFunction(tasks.burn_cpu, 0.1), waiting_seconds=-1)
    assert result.is_successful is True
    assert result.attempt == 1
    assert result.elapsed_seconds >= 0.1


def test_every_task_of_a_kept_process_finds_its_own_id_in_the_environment(lone_warm: Client) -> None:
    def look(spoil: bool) -> bool:
        own = current_task().task_id
        seen = subprocess.run(["printenv", "PALPABLE_TASK_ID"], capture_output=True, text=True).stdout.strip()
        is_own = own == seen == os.environ["PALPABLE_TASK_ID"]
        if spoil:
            os.environ["PALPABLE_TASK_ID"] = "mine"
        return is_own

    futures = [lone_warm.submit(look, spoil) for spoil in (False, False, True, False, False)]
    assert [future.result() for future in futures] == [True] * 5
