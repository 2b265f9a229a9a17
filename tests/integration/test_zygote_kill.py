"""Ending a task process: its whole tree goes, whatever it did to get away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
