"""Requests that no client of ours would send: refused, or answered, and the server goes on."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from palpable import Server
from palpable._wire.blake2 import digest_of
from palpable._wire.messages import (
    ListTasks,
    QueryResults,
    RequestFailed,
    ResultsFound,
    SubmitTasks,
    TaskList,
    TaskOptions,
    TaskRequest,
    TasksAccepted,
)
from support import tasks
from support.raw_wire import ask, greeted_connection


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[Server]:
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server:
        yield server


def _submission(*task_ids: str, **options: Any) -> SubmitTasks:
    function = pickle.dumps(tasks.double)
    key = digest_of(function)
    requests = [
        TaskRequest(task_id, "call", key, pickle.dumps(((number,), {}))) for number, task_id in enumerate(task_ids)
    ]
    return SubmitTasks(
        request_id=1, tasks=requests, functions={key: function}, options=TaskOptions(**options), delivery="none"
    )


def test_what_is_out_of_range_is_refused(durable_server: Server) -> None:
    unfit = [
        _submission("a" * 32, priority=1 << 63),
        _submission("a" * 32, priority=-(1 << 63)),
        _submission("a" * 65),
        _submission(""),
        _submission("with\0null"),
    ]
    with greeted_connection(durable_server) as sock:
        for submission in unfit:
            answer = ask(sock, submission)
            assert isinstance(answer, RequestFailed)
            assert answer.error == "ValueError"
        assert ask(sock, ListTasks(request_id=2)) == TaskList(request_id=2, tasks=[])


def test_of_two_tasks_with_the_same_id_the_first_counts(durable_server: Server) -> None:
    with greeted_connection(durable_server) as sock:
        assert ask(sock, _submission("other", "same", "same")) == TasksAccepted(request_id=1)
        found = ask(sock, QueryResults(request_id=2, task_ids=["same"], wait_seconds=20))
        assert isinstance(found, ResultsFound)
        assert [pickle.loads(report.payload or b"") for report in found.reports if report] == [2]


def test_who_asks_for_the_same_task_twice_is_answered_once(durable_server: Server) -> None:
    with greeted_connection(durable_server) as sock:
        assert ask(sock, _submission("twice")) == TasksAccepted(request_id=1)
        found = ask(sock, QueryResults(request_id=2, task_ids=["twice", "twice"], wait_seconds=20, take=False))
        assert len(found.reports) == 2
        assert isinstance(ask(sock, ListTasks(request_id=3)), TaskList)


def test_a_task_whose_function_is_lost_fails_and_holds_nobody_up(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "jobs.db"
    for isolation in ("task", "worker"):
        with Server(num_workers=1, store=path) as server, server.client() as client:
            later = client.options(isolation=isolation, delay_seconds=0.5).submit(tasks.double, 1).task_id
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM functions")
        connection.close()
        with Server(num_workers=1, store=path) as server, server.client() as client:
            with pytest.raises(RuntimeError, match="lost the function"):
                client.result(later, 20)
            assert client.submit(tasks.double, 2).result(20) == 4


def test_a_function_under_the_name_of_another_is_refused_and_does_not_take_its_place(durable_server: Server) -> None:
    submission = _submission("one")
    key = submission.tasks[0].function_key
    poisoned = replace(submission, functions={key: pickle.dumps(tasks.treble)})
    with greeted_connection(durable_server) as sock:
        answer = ask(sock, poisoned)
        assert isinstance(answer, RequestFailed) and key in answer.message
        assert isinstance(ask(sock, submission), TasksAccepted)
        (report,) = ask(sock, QueryResults(request_id=5, task_ids=["one"], wait_seconds=-1)).reports
        assert pickle.loads(report.payload) == 0


def test_bytes_sent_for_a_function_that_is_known_do_not_replace_it(durable_server: Server) -> None:
    first = _submission("one")
    key = first.tasks[0].function_key
    second = replace(_submission("two", "three"), functions={key: pickle.dumps(tasks.own_pid)})
    with greeted_connection(durable_server) as sock:
        assert isinstance(ask(sock, first), TasksAccepted)
        assert isinstance(ask(sock, second), TasksAccepted)
        (report,) = ask(sock, QueryResults(request_id=5, task_ids=["three"], wait_seconds=-1)).reports
        assert pickle.loads(report.payload) == 2
