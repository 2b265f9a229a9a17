"""Peers that ask and do not read: the server keeps little of what they were to get, and serves everybody else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palpable import RunFunction, Server
from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.messages import (
    ListTasks,
    QueryResults,
    ReadLogs,
    ResultsPushed,
    ServerAnswer,
    SubmitTasks,
    TaskRequest,
)
from palpable._wire.payload import dumps_call
from palpable._wire.pickled_function import dumps_function
from support import tasks
from support.processes import server_process
from support.raw_wire import greeted_connection
from support.wait import wait_until

pytestmark = pytest.mark.slow

ALLOWED_BYTES = 40_000_000
REQUESTS = 3000
"""Each answer takes 50 KB at least, so that all of them would take 150 MB."""


def _send_until_blocked(sock: socket.socket, make: Callable[[int], Any], count: int = REQUESTS) -> int:
    """Send requests until the server takes no more, or `count`; return how many left completely."""
    sock.settimeout(0.5)
    for number in range(count):
        try:
            sock.sendall(encode_frame(make(number)))
        except TimeoutError:
            return number
    return count


def _fill(server: Server) -> str:
    """Give the server something to tell; return the id of a task that has printed and returned much."""
    with server.client() as client:
        client.options(isolation="worker").map(tasks.double, range(400), chunksize=1)
        future = client.submit(tasks.print_bytes, 400_000)
        future.result()
        return future.task_id


@pytest.mark.parametrize("kind", ["lists", "logs"])
def test_a_client_that_asks_and_never_reads_costs_little_memory_and_holds_up_nobody(kind: str) -> None:
    with Server(num_workers=1) as server:
        task_id = _fill(server)
        make: Callable[[int], Any] = {
            "lists": lambda number: ListTasks(request_id=number),
            "logs": lambda number: ReadLogs(request_id=number, task_id=task_id, follow=True),
        }[kind]
        process = server_process()
        before = process.memory_info().rss
        with greeted_connection(server) as sock, server.client() as client:
            _send_until_blocked(sock, make)
            for number in range(20):
                began = time.monotonic()
                assert client.run(tasks.double, number) == 2 * number
                assert time.monotonic() - began < 5.0
            assert process.memory_info().rss - before < ALLOWED_BYTES


def test_many_who_wait_for_one_result_and_never_read_it_cost_little_memory(tmp_path: Path) -> None:
    with Server(num_workers=1) as server, server.client() as client:
        future = client.submit(tasks.bytes_after, str(tmp_path / "go"), 1_000_000)
        process = server_process()
        with greeted_connection(server) as sock:
            sent = _send_until_blocked(
                sock, lambda number: QueryResults(request_id=number, task_ids=[future.task_id], wait_seconds=-1), 500
            )
            assert sent == 500
            before = process.memory_info().rss
            (tmp_path / "go").touch()
            assert len(future.result()) == 1_000_000
            assert client.run(tasks.double, 1) == 2
            assert process.memory_info().rss - before < ALLOWED_BYTES


def test_answers_that_wait_for_the_disk_are_few_too(tmp_path: Path) -> None:
    store = tmp_path / "jobs.db"
    with Server(num_workers=1, store=store) as server, server.client() as client:
        task_id = client.run_procedure(RunFunction(bytes, 1_000_000), 0.001).task_id
        assert len(client.result(task_id, 30)) == 1_000_000
    function = dumps_function(tasks.double)
    questions = b"".join(
        encode_frame(
            SubmitTasks(
                request_id=2 * number,
                functions={function.key: function.data},
                tasks=[TaskRequest(f"task-{number}", "call", function.key, dumps_call((number,), {}))],
            )
        )
        + encode_frame(QueryResults(request_id=2 * number + 1, task_ids=[task_id], take=False))
        for number in range(200)
    )
    with Server(num_workers=1, store=store) as server, server.client() as client:
        client.run(tasks.double, 1)
        process = server_process()
        before = process.memory_info().rss
        with greeted_connection(server) as sock:
            sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                sock.sendall(questions)
            assert client.run(tasks.double, 2) == 4
            assert process.memory_info().rss - before < ALLOWED_BYTES


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_a_slow_reader_gets_every_answer_in_order(family: str) -> None:
    with Server(num_workers=1, family=family) as server:
        _fill(server)
        count = 200
        with greeted_connection(server) as sock:
            sock.settimeout(20.0)
            sender = threading.Thread(
                target=sock.sendall, args=(b"".join(encode_frame(ListTasks(request_id=n)) for n in range(count)),)
            )
            sender.start()
            reader: FrameReader[Any] = FrameReader(ServerAnswer)
            answers: list[int] = []
            while len(answers) < count:
                answers += [answer.request_id for answer in reader.feed(sock.recv(10_000))]
            sender.join()
        assert answers == list(range(count))


def test_results_wait_for_a_client_that_does_not_read_and_all_of_them_reach_it() -> None:
    function = dumps_function(bytes)
    count, size = 60, 1_000_000
    submit = SubmitTasks(
        request_id=1,
        functions={function.key: function.data},
        tasks=[TaskRequest(f"big-{n}", "call", function.key, dumps_call((size,), {})) for n in range(count)],
    )
    with Server(num_workers=1) as server, greeted_connection(server) as sock, server.client() as client:
        sock.sendall(encode_frame(submit))
        wait_until(lambda: len(client.tasks("succeeded")) == count, timeout_seconds=30)
        reader: FrameReader[Any] = FrameReader(ServerAnswer)
        reports: list[Any] = []
        while len(reports) < count:
            for message in reader.feed(sock.recv(1 << 16)):
                reports += [*message.returned, *message.reports] if isinstance(message, ResultsPushed) else ()
        assert {report.task_id for report in reports} == {f"big-{n}" for n in range(count)}


def test_a_task_that_asks_and_never_reads_costs_little_memory_and_holds_up_nobody() -> None:
    with Server(num_workers=2) as server, server.client() as client:
        _fill(server)
        process = server_process()
        before = process.memory_info().rss
        greedy = client.submit(tasks.ask_and_never_read, REQUESTS)
        assert greedy.result() < REQUESTS
        assert client.map(tasks.double, [1, 2, 3]) == [2, 4, 6]
        assert process.memory_info().rss - before < ALLOWED_BYTES


def test_a_client_that_submits_much_while_nobody_reads_its_answers_gets_through() -> None:
    with Server(num_workers=2) as server, server.client() as client:
        _fill(server)
        futures = [client.submit(bytes, 200_000) for _ in range(100)]
        echoes = [client.submit(len, b"x" * 500_000) for _ in range(100)]
        assert [future.result() for future in echoes] == [500_000] * 100
        assert all(len(future.result()) == 200_000 for future in futures)
