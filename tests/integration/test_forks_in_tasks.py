"""A process that a task forks is not the task: it answers for nobody, whatever it does with what it inherited."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

import palpable
from palpable import Client, ServerUnreachable
from palpable.units.messenger import Messenger
from support import tasks

pytestmark = pytest.mark.shared_server

Isolation = Literal["task", "worker"]
both_isolations = pytest.mark.parametrize("isolation", ["task", "worker"])


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@both_isolations
@pytest.mark.parametrize("way", ["returns", "raises", "leaves"])
def test_a_child_that_comes_back_from_the_function_gives_no_answer(
    client: Client, isolation: Isolation, way: str
) -> None:
    def function(way: str) -> int:
        pid = os.fork()
        if pid:
            assert _exit_code(pid) == 0
        elif way == "raises":
            raise ValueError("the child")
        elif way == "leaves":
            raise SystemExit
        return pid

    view = client.options(isolation=isolation)
    assert view.submit(function, way).result(timeout=30) > 0
    assert view.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]


@both_isolations
def test_a_child_that_comes_back_gives_no_answer_after_the_task_spoke_with_the_server(
    client: Client, isolation: Isolation
) -> None:
    def function(number: int) -> list[int]:
        assert palpable.current_task().map(tasks.double, [number]) == [2 * number]
        pid = os.fork()
        if pid:
            assert _exit_code(pid) == 0
            return palpable.current_task().map(tasks.double, [3, 4])
        return []

    view = client.options(isolation=isolation)
    assert view.submit(function, 1).result(timeout=30) == [6, 8]
    assert view.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]


@both_isolations
@pytest.mark.parametrize("has_spoken", [False, True])
def test_a_child_can_not_use_the_line_of_the_task(client: Client, isolation: Isolation, has_spoken: bool) -> None:
    def function(has_spoken: bool) -> tuple[int, list[int]]:
        messenger: Messenger = palpable.current_task()
        if has_spoken:
            messenger.map(tasks.double, [0])
        pid = os.fork()
        if pid == 0:
            messenger.info("never heard")
            try:
                messenger.submit(tasks.double, 5)
            except ServerUnreachable:
                os._exit(7)
            os._exit(0)
        return _exit_code(pid), messenger.map(tasks.double, [1, 2])

    future = client.options(isolation=isolation).submit(function, has_spoken)
    assert future.result(timeout=30) == (7, [2, 4])
    assert not [task for task in client.tasks() if task.state == "running"]


@pytest.mark.parametrize("params", [range(6), list(range(6))], ids=["range", "list"])
@pytest.mark.parametrize("is_plain", [True, False], ids=["function", "object"])
def test_a_child_does_not_go_on_with_the_chunk_of_its_parent(
    client: Client, tmp_path: Path, params: Sequence[int], is_plain: bool
) -> None:
    path = str(tmp_path / "ran")

    def function(number: int) -> int:
        tasks.append_line(path, str(number))
        if number == 1:
            pid = os.fork()
            if pid:
                assert _exit_code(pid) == 0
        return number

    called = function if is_plain else functools.partial(function)
    assert client.options(isolation="worker").map(called, params, chunksize=6) == list(range(6))
    assert sorted((tmp_path / "ran").read_text().split()) == [str(number) for number in range(6)]


@both_isolations
@pytest.mark.parametrize("ends_by_exit", [False, True])
def test_a_child_that_comes_back_while_nobody_can_write_ends(
    client: Client, isolation: Isolation, ends_by_exit: bool
) -> None:
    def fork_with_a_locked_stream() -> int:
        import io
        import threading

        class Slow(io.RawIOBase):
            """Holds the lock of the stream above it."""

            def writable(self) -> bool:
                return True

            def write(self, data: Any, /) -> int:
                is_writing.set()
                go_on.wait(10)
                return len(data)

        is_writing, go_on = threading.Event(), threading.Event()
        before, sys.stdout = sys.stdout, io.TextIOWrapper(io.BufferedWriter(Slow()), line_buffering=True)
        threading.Thread(target=print, args=("x",)).start()
        assert is_writing.wait(5)
        pid = os.fork()
        if not pid:
            if ends_by_exit:
                sys.exit(7)
            return -1
        deadline = time.monotonic() + 8
        ended = 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        go_on.set()
        sys.stdout = before
        return os.waitstatus_to_exitcode(status) if ended else -1

    future = client.options(isolation=isolation).submit(fork_with_a_locked_stream)
    assert future.result(timeout=30) == (7 if ends_by_exit else 0)
