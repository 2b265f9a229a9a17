"""One client serves all threads of a process; in a forked process it makes a connection of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from palpable import Client, Executor, Server
from palpable.units import client as client_module
from support import tasks
from support.processes import server_process
from support.scripts import run_script
from support.wait import wait_until


def _fork(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return the exit code of the child: 0 if it raised nothing."""
    with warnings.catch_warnings():
        # Since 3.12 Python warns of a fork while threads run. That is the very case here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    deadline = threading.Timer(30, lambda: psutil.Process(pid).kill())
    deadline.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        deadline.cancel()
        deadline.join()


def test_many_threads_share_one_client(client: Client) -> None:
    def work(number: int) -> list[int]:
        assert client.run(tasks.double, number) == number * 2
        assert client.submit(tasks.double, number).result(timeout=30) == number * 2
        with pytest.raises(tasks.OddNumber) as caught:
            client.run(tasks.half, number * 2 + 1)
        assert caught.value.number == number * 2 + 1
        return client.map(tasks.double, [number, number + 1])

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(32))) == [[number * 2, number * 2 + 2] for number in range(32)]


def test_all_threads_of_a_process_use_one_connection(server: Server) -> None:
    process = server_process()
    with server.client() as client:
        client.run(tasks.double, 1)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: client.run(tasks.double, number), range(32)))
        connections = [item for item in process.net_connections("unix") if item.laddr == server.address]
        assert len(connections) <= 3  # the one that listens, this client's, the server object's own


def test_a_thread_that_waits_long_does_not_hold_up_the_others(client: Client, tmp_path: Path) -> None:
    slow = threading.Thread(target=client.run, args=(tasks.hold, str(tmp_path)))
    slow.start()
    wait_until((tmp_path / "holding").exists)
    assert client.map(tasks.double, range(10)) == [number * 2 for number in range(10)]
    (tmp_path / "holding.go").touch()
    slow.join(timeout=20)
    assert not slow.is_alive()


def test_callbacks_of_futures_run_without_anybody_waiting(client: Client) -> None:
    done = threading.Event()
    future = client.submit(tasks.double, 4)
    future.add_done_callback(lambda _: done.set())
    assert done.wait(timeout=20)


def test_futures_work_with_wait_as_completed_and_asyncio(client: Client) -> None:
    futures = [client.submit(tasks.double, number) for number in range(10)]
    finished, pending = concurrent.futures.wait(futures, timeout=20)
    assert len(finished) == 10 and not pending
    futures = [client.submit(tasks.double, number) for number in range(10)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, timeout=20)) == [
        number * 2 for number in range(10)
    ]

    async def gather() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(client.submit(tasks.double, number)) for number in range(5)))

    assert asyncio.run(gather()) == [0, 2, 4, 6, 8]


def test_imap_yields_in_order_and_imap_unordered_as_they_finish(client: Client, tmp_path: Path) -> None:
    def hold_the_first(number: int) -> int:
        if number == 0:
            tasks.hold(str(tmp_path))
        return number

    unordered = client.imap_unordered(hold_the_first, range(5))
    assert sorted(next(unordered) for _ in range(4)) == [1, 2, 3, 4]
    (tmp_path / "holding.go").touch()
    assert list(unordered) == [0]
    assert list(client.imap(tasks.double, iter(range(20)))) == [number * 2 for number in range(20)]


def test_an_iterator_given_up_halfway_leaves_nothing_running(client: Client, tmp_path: Path) -> None:
    results = client.imap(tasks.double_or_block, [(1, ""), (2, str(tmp_path))])
    assert next(results) == 2
    wait_until((tmp_path / "blocked").exists)
    results.close()
    wait_until(lambda: not client.tasks(state="running"))


def test_a_client_used_after_a_fork_makes_its_own_connection(client: Client) -> None:
    assert client.run(tasks.double, 1) == 2

    def work() -> None:
        assert client.run(tasks.double, 21) == 42
        assert client.map(tasks.double, [1, 2]) == [2, 4]
        assert client.submit(tasks.double, 5).result(timeout=20) == 10

    assert _fork(work) == 0
    assert client.run(tasks.double, 2) == 4


def test_parent_and_child_use_the_same_client_at_the_same_time(client: Client) -> None:
    pending = [client.submit(tasks.double, number) for number in range(50)]
    assert _fork(lambda: _check_map(client)) == 0
    assert [future.result(timeout=20) for future in pending] == [number * 2 for number in range(50)]


def test_a_fork_while_another_thread_is_in_the_middle_of_a_call_is_safe(client: Client) -> None:
    is_over = threading.Event()

    def keep_busy() -> None:
        while not is_over.is_set():
            assert client.run(tasks.double, 1) == 2
            client.submit(tasks.double, 1)

    busy = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(5):
            assert _fork(lambda: _check_map(client)) == 0
    finally:
        is_over.set()
        for thread in busy:
            thread.join()


@pytest.mark.parametrize("holder", ["client", "executor"])
def test_a_fork_while_another_thread_holds_a_lock_of_ours_is_safe(client: Client, holder: str) -> None:
    with Executor(client=client) as executor:
        assert executor.submit(tasks.double, 1).result(timeout=20) == 2
        lock = client_module._remaking_locks if holder == "client" else executor._pool._lock
        is_held, is_over = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                is_held.set()
                is_over.wait(60)

        def work() -> None:
            future = (executor if holder == "executor" else client).submit(tasks.double, 2)
            assert future.result(timeout=20) == 4

        holding = threading.Thread(target=hold)
        holding.start()
        try:
            assert is_held.wait(20)
            assert _fork(work) == 0
        finally:
            is_over.set()
            holding.join()


def _check_map(client: Client) -> None:
    assert client.map(tasks.double, range(10)) == [number * 2 for number in range(10)]


def test_a_client_travels_to_a_spawned_process(tmp_path: Path) -> None:
    source = """
        import multiprocessing
        from palpable import Server

        def work(client):
            return client.map(abs, [-1, -2])

        if __name__ == "__main__":
            with Server(num_workers=1) as server, server.client() as client:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(client.run(abs, -3), pool.apply(work, [client]))
    """
    assert run_script(tmp_path, source) == "3 [1, 2]\n"


def test_a_broken_connection_is_made_anew_at_the_next_call(tmp_path: Path) -> None:
    address = str(tmp_path / "again.sock")
    with Client(address, "AF_UNIX", b"key") as client:
        for _ in range(3):
            with Server(str(tmp_path / "logs"), address, "AF_UNIX", b"key", 1):
                assert client.run(tasks.double, 4) == 8


def test_the_first_failure_of_a_map_cancels_the_rest(client: Client, tmp_path: Path) -> None:
    def fail_or_block(number: int) -> None:
        if number == 0:
            raise tasks.OddNumber(1)
        tasks.block(str(tmp_path), f"blocked-{number}")

    with pytest.raises(tasks.OddNumber):
        client.map(fail_or_block, range(10))
    wait_until(lambda: not client.tasks(state="running") and not client.tasks(state="ready"))
