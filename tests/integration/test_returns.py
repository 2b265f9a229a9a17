"""Kept processes say what they have to say by two ways, and it is heard in order."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

import pytest

from palpable import Client, current_task


@pytest.fixture
def kept(client: Client) -> Client:
    """A client whose tasks share processes, on two workers."""
    return client.options(isolation="worker")


def mixed(kind: int, number: int) -> Any:
    """Come to an end of one of many kinds."""
    if kind == 0:
        raise ValueError(number)
    if kind == 1:
        return number, "x" * 5000  # more than a record holds
    if kind == 2:
        current_task().info(f"said {number}")
    if kind == 3:
        print(f"printed {number}")
    if kind == 4:
        threading.Thread(target=current_task().info, args=("said later",)).start()
    if kind == 5:
        time.sleep(0.0003)
    return number


def test_ends_of_all_kinds_come_back_each_to_its_own(kept: Client) -> None:
    rng = random.Random(11)
    for weights in ([1, 1, 1, 1, 0, 1, 60], [20, 20, 20, 20, 5, 5, 20], [0, 0, 0, 0, 0, 0, 1]):
        for _ in range(12):
            kinds = rng.choices(range(7), weights, k=200)
            futures = [kept.submit(mixed, kind, number) for number, kind in enumerate(kinds)]
            for number, (kind, future) in enumerate(zip(kinds, futures, strict=True)):
                if kind == 0:
                    error = future.exception(timeout=20)
                    assert isinstance(error, ValueError) and error.args == (number,)
                elif kind == 1:
                    assert future.result(timeout=20) == (number, "x" * 5000)
                else:
                    assert future.result(timeout=20) == number


def test_output_is_told_apart_also_of_tasks_that_are_heard_of_together(kept: Client) -> None:
    futures = [kept.submit(print, number) if number % 3 else kept.submit(abs, number) for number in range(300)]
    done = {number: future for number, future in enumerate(futures) if future.result(timeout=20) is None}
    logs = {number: future.logs() for number, future in done.items()}
    assert logs == {number: f"{number}\n" for number in range(300) if number % 3}


@pytest.mark.parametrize("is_closed", [True, False])
def test_output_of_a_batch_is_kept_also_when_its_last_task_gives_its_output_away(
    lone_client: Client, is_closed: bool
) -> None:
    def give_away() -> None:
        if not is_closed:
            fd = os.open(os.devnull, os.O_WRONLY)
            os.dup2(fd, 1)
            os.close(fd)
        else:
            os.close(1)

    kept = lone_client.options(isolation="worker")
    for future in [kept.submit(abs, number) for number in range(300)]:
        future.result(timeout=20)
    futures = [kept.submit(print, number) for number in range(60)]
    kept.submit(give_away).result(timeout=20)
    for number, future in enumerate(futures):
        assert future.result(timeout=20) is None
        assert future.logs() == f"{number}\n"


def test_a_task_that_closes_its_pipes_but_not_its_socket_has_a_result(kept: Client) -> None:
    def close_pipes() -> int:
        from palpable._zygote.task_process import SOCKET_FD

        os.closerange(3, SOCKET_FD)
        os.closerange(SOCKET_FD + 1, 1024)
        return os.getpid()

    pid = kept.run(lambda _: close_pipes(), None)
    assert isinstance(pid, int)
    assert [kept.run(abs, -n) for n in range(20)] == list(range(20))


def test_a_child_that_a_task_forked_says_nothing_by_the_pipe(kept: Client) -> None:
    def fork() -> int:
        return os.fork()

    for _ in range(20):
        pids = [future.result(timeout=20) for future in [kept.submit(fork) for _ in range(10)]]
        assert all(pids)
    assert kept.run(abs, -3) == 3
