"""A signal handler, or a `__del__`, uses the client in the middle of a call of the same client, and waits there.

Where it comes is tried at every call and return of the code of the connection: between these no handler runs.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from palpable import Client, Server, TaskFuture
from support import tasks
from support.wait import wait_until

WAIT_SECONDS = 20.0


@pytest.fixture(params=["worker", "task"])
def client(request: pytest.FixtureRequest) -> Any:
    with Server(num_workers=2, isolation=request.param) as server, server.client() as client:
        client.map(tasks.double, range(4))
        yield client


def _call_with(client: Client, step: int, nested: Callable[[], object]) -> tuple[bool, list[int]]:
    """Make a call in a thread of its own, and `nested` in its middle; return whether that was made, and the results."""
    was_made, results = [], list[int]()

    def call() -> None:
        steps = count()

        def look(frame: FrameType, event: str, arg: object) -> None:
            if "_connection" in frame.f_code.co_filename and next(steps) == step:
                was_made.append(step)
                nested()

        sys.setprofile(look)
        try:
            results.append(client.run(tasks.double, 21))
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive(), f"hangs with a call at step {step}"
    return bool(was_made), results


def test_a_call_within_a_call_takes_nothing_from_it(client: Client) -> None:
    answers: list[int] = []
    for step in count():
        was_made, results = _call_with(client, step, lambda: answers.append(client.submit(tasks.double, 4).result()))
        assert results == [42], step
        if not was_made:
            break
    assert step > 100
    assert answers == [8] * step


def test_what_is_submitted_within_a_call_is_not_lost(client: Client) -> None:
    futures: list[TaskFuture[int]] = []
    for step in count():
        was_made, results = _call_with(client, step, lambda: futures.append(client.submit(tasks.double, 4)))
        assert results == [42], step
        if not was_made:
            break
    assert step > 100
    assert [future.result(timeout=WAIT_SECONDS) for future in futures] == [8] * step


def test_a_handler_that_comes_again_and_again_uses_the_client_that_waits(client: Client) -> None:
    answers: list[int] = []
    depth, is_over = 0, False

    def come_again() -> None:
        # Within itself too, but not without end: on a slow machine it comes again before it has its answer.
        if depth < 10 and not is_over:
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    def handle(number: int, frame: object) -> None:
        nonlocal depth
        depth += 1
        come_again()
        answers.append(client.submit(tasks.double, 4).result())
        depth -= 1
        come_again()

    before = signal.signal(signal.SIGALRM, handle)
    come_again()
    try:
        while len(answers) < 40:
            assert client.run(time.sleep, 0.5) is None
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(answers) == {8}


def test_a_call_in_the_middle_of_a_claim_is_read_for_by_the_thread_that_reads(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.block, str(tmp_path))
    connection = client._get_connection()
    wait_until(lambda: connection._leadership.is_in_background)
    results: list[int] = []

    def call() -> None:
        with connection._leadership._lock:  # where a signal handler may come
            results.append(client.run(tasks.double, 4))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert results == [8]
    assert future.cancel() or future.done()
