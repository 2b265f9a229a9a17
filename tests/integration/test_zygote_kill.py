"""Ending a task process: its whole tree goes, whatever it did to get away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import tasks
from support.processes import is_alive
from support.wait import wait_until
from support.zygotes import FakeProcess, FakeServer, serve


def _say_pid() -> None:
    print(os.getpid(), flush=True)


def _child(stay: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            stay()
        finally:
            os._exit(0)
    return pid


def _sleep_on() -> None:
    _say_pid()
    time.sleep(60)


def _start_child() -> None:
    _child(_sleep_on)


def _start_session() -> None:
    def stay() -> None:
        os.setsid()
        _sleep_on()

    _child(stay)


def _start_double_fork() -> None:
    def stay() -> None:
        os.setsid()
        _child(_sleep_on)

    os.waitpid(_child(stay), 0)


def _start_chain() -> None:
    """Each forks the next one, in a session of its own, and stays."""

    def stay(depth: int) -> None:
        os.setsid()
        if depth:
            _child(lambda: stay(depth - 1))
        _sleep_on()

    _child(lambda: stay(4))


def _start_subprocess() -> None:
    print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)


KINDS = {
    "child": (_start_child, 1),
    "session": (_start_session, 1),
    "double fork": (_start_double_fork, 1),
    "chain": (_start_chain, 5),
    "subprocess": (_start_subprocess, 1),
}


async def _pids_in(process: FakeProcess, count: int) -> list[int]:
    await asyncio.to_thread(wait_until, lambda: process.output().count("\n") >= count)
    return [int(line) for line in process.output().split()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_task_leaves_behind_is_gone_when_its_exit_is_reported(tmp_path: Path, kind: str) -> None:
    start, count = KINDS[kind]

    def task() -> None:
        start()
        while Path("/proc/self/fd/1").read_text().count("\n") < count:
            time.sleep(0.005)

    async def test(server: FakeServer) -> None:
        _, exit, process = await server.run(task)
        pids = await _pids_in(process, count)
        assert len(pids) == count and not [pid for pid in pids if is_alive(pid)]
        assert exit.strays_killed >= 1

    serve(tmp_path, test)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_task_takes_its_whole_tree_with_it_and_nobody_elses(tmp_path: Path, kind: str) -> None:
    start, count = KINDS[kind]

    def task() -> None:
        start()
        time.sleep(60)

    async def test(server: FakeServer) -> None:
        victim, other = await server.take(), await server.take()
        running = [asyncio.ensure_future(process.run(task)) for process in (victim, other)]
        pids, pids_of_other = await _pids_in(victim, count), await _pids_in(other, count)
        server.handle.end_process(victim.pid)
        exit = await server.exit_of(victim)
        assert exit.exit_status == -signal.SIGKILL
        assert not [pid for pid in pids if is_alive(pid)]
        assert all(is_alive(pid) for pid in pids_of_other)
        server.handle.end_process(other.pid)
        await server.exit_of(other)
        assert not [pid for pid in pids_of_other if is_alive(pid)]
        await asyncio.gather(*running)

    serve(tmp_path, test, processes=2)


def test_a_task_has_its_grace_time_to_clean_up(tmp_path: Path) -> None:
    def task() -> None:
        def clean_up(_number: int, _frame: object) -> None:
            time.sleep(0.1)
            print("clean", flush=True)
            os._exit(7)

        signal.signal(signal.SIGTERM, clean_up)
        print("ready", flush=True)
        time.sleep(60)

    async def test(server: FakeServer) -> None:
        process = await server.take()
        running = asyncio.ensure_future(process.run(task))
        await asyncio.to_thread(wait_until, process.output)
        server.handle.end_process(process.pid, grace_seconds=10)
        assert (await server.exit_of(process)).exit_status == 7
        assert process.output() == "ready\nclean\n"
        await running

    serve(tmp_path, test)


def test_a_task_that_ignores_sigterm_is_killed_after_its_grace_time(tmp_path: Path) -> None:
    def task() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(60)

    async def test(server: FakeServer) -> None:
        process = await server.take()
        running = asyncio.ensure_future(process.run(task))
        await asyncio.to_thread(wait_until, process.output)
        start = time.monotonic()
        server.handle.end_process(process.pid, grace_seconds=0.3)
        assert (await server.exit_of(process)).exit_status == -signal.SIGKILL
        assert 0.3 <= time.monotonic() - start < 3
        await running

    serve(tmp_path, test)


def test_an_idle_process_and_one_that_is_gone_can_be_ended(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        process = await server.take()
        server.handle.end_process(process.pid, grace_seconds=5)
        assert (await server.exit_of(process)).exit_status == -signal.SIGTERM
        server.handle.end_process(process.pid, grace_seconds=5)
        assert await server.value(lambda: 1) == 1

    serve(tmp_path, test)


# --- resource trackers ----------------------------------------------------------------------------------------------

SHARE_IN_A_PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(Path(tasks.__file__).parent.parent)!r})
from support import tasks
print(tasks.share_memory(), flush=True)
time.sleep(60)
"""
SEEMS_A_TRACKER = "import time; '.resource_tracker import main'; print('ready', flush=True); time.sleep(60)"


def _raise() -> None:
    raise ValueError("before unlink")


@pytest.mark.parametrize(
    ("end", "exit_status"),
    [(lambda: None, 0), (_raise, 0), (lambda: os._exit(3), 3)],
    ids=["returns", "raises", "exits"],
)
def test_what_a_task_leaves_in_shared_memory_is_removed(
    tmp_path: Path, end: Callable[[], None], exit_status: int
) -> None:
    def task() -> None:
        print(tasks.share_memory(), flush=True)
        end()

    async def test(server: FakeServer) -> None:
        process = await server.take()
        await process.run(task)
        exit = await server.exit_of(process)
        file = process.output().split()[0]
        assert exit.exit_status == exit_status
        assert file.startswith("/dev/shm/") and not os.path.exists(file)
        assert exit.strays_killed == 0

    serve(tmp_path, test)


def _share_and_stay() -> None:
    print(tasks.share_memory(), flush=True)
    time.sleep(60)


def _share_in_a_program() -> None:
    subprocess.run([sys.executable, "-c", SHARE_IN_A_PROGRAM])


def _share_with_a_fork() -> None:
    """The tracker is used by the child too, which is in a session of its own."""
    print(tasks.share_memory(), flush=True)
    _child(lambda: (os.setsid(), time.sleep(60)))
    time.sleep(60)


@pytest.mark.parametrize("share", [_share_and_stay, _share_in_a_program, _share_with_a_fork])
@pytest.mark.parametrize("grace_seconds", [0.0, 0.05])
def test_what_a_killed_task_leaves_in_shared_memory_is_removed(
    tmp_path: Path, share: Callable[[], None], grace_seconds: float
) -> None:
    def task() -> None:
        if grace_seconds:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        share()

    async def test(server: FakeServer) -> None:
        process = await server.take()
        running = asyncio.ensure_future(process.run(task))
        await asyncio.to_thread(wait_until, lambda: process.output().endswith("\n"))
        file = process.output().split()[0]
        server.handle.end_process(process.pid, grace_seconds)
        await server.exit_of(process)
        assert file.startswith("/dev/shm/") and not os.path.exists(file)
        await running

    serve(tmp_path, test)


def test_what_tasks_leave_in_shared_memory_is_removed_when_their_zygote_ends(tmp_path: Path) -> None:
    files: list[str] = []

    async def test(server: FakeServer) -> None:
        process = await server.take()
        running = asyncio.ensure_future(process.run(_share_and_stay))
        await asyncio.to_thread(wait_until, lambda: process.output().endswith("\n"))
        files.extend(process.output().split())
        server.handle.close()
        await running

    serve(tmp_path, test)
    assert len(files) == 1 and not os.path.exists(files[0])


def test_what_only_seems_a_resource_tracker_outlives_its_task_by_a_moment_at_most(tmp_path: Path) -> None:
    def task() -> None:
        command = [sys.executable, "-c", SEEMS_A_TRACKER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as stray:
            assert stray.stdout is not None
            stray.stdout.readline()
            print(stray.pid, flush=True)
            os._exit(0)

    async def test(server: FakeServer) -> None:
        _, exit, process = await server.run(task)
        assert exit.strays_killed == 1
        assert not is_alive(int(process.output()))

    serve(tmp_path, test)


def test_a_tracker_does_not_save_what_forks_all_the_time(tmp_path: Path) -> None:
    """By its pid it can't be killed: it has another one by then. Its group has to be."""

    def fork_on() -> None:
        while not os.fork():
            pass
        os._exit(0)

    def task() -> None:
        with subprocess.Popen([sys.executable, "-c", SEEMS_A_TRACKER], stdout=subprocess.PIPE) as stray:
            assert stray.stdout is not None
            stray.stdout.readline()
            print(stray.pid, flush=True)
            _child(fork_on)
            os._exit(0)

    async def test(server: FakeServer) -> None:
        _, exit, process = await server.run(task)
        assert exit.exit_status == 0
        assert not is_alive(int(process.output()))

    serve(tmp_path, test)
