"""A client that has connected again asks for the results of what it had submitted, as if nothing was."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from palpable import Client, Server
from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.messages import (
    GetStatus,
    ResultsPushed,
    ResultsReceived,
    ResultsWatched,
    ServerAnswer,
    StatusReport,
    SubmitTasks,
    TaskOptions,
    TaskRequest,
    TasksAccepted,
    WatchResults,
)
from palpable._wire.payload import dumps_call, dumps_function, result_of
from support import tasks
from support.raw_wire import apart, ask, greeted_connection
from support.wait import wait_until


def _messages(sock: socket.socket, count: int) -> list[Any]:
    """The next `count` messages."""
    reader: FrameReader[Any] = FrameReader(ServerAnswer)
    found: list[Any] = []
    while len(found) < count:
        found += apart(reader.feed(sock.recv(1 << 16)))
    assert len(found) == count
    return found


def _submission(task_id: str, function: Any, *args: Any) -> SubmitTasks:
    key, data, name = dumps_function(function)
    request = TaskRequest(task_id, "call", key, dumps_call(args, {}), name)
    return SubmitTasks(request_id=1, tasks=[request], functions={key: data})


def test_a_result_goes_to_the_connection_that_asked_for_it_last(server: Server, tmp_path: Path) -> None:
    with greeted_connection(server) as first, greeted_connection(server) as second:
        assert isinstance(ask(first, _submission("one", tasks.hold, str(tmp_path))), TasksAccepted)
        assert ask(second, WatchResults(request_id=7, task_ids=["one"])) == ResultsWatched(request_id=7)
        (tmp_path / "holding.go").touch()
        (pushed,) = _messages(second, 1)
        assert [result_of(report) for report in pushed.reports] == ["holding"]
        # The first one is told nothing: what it gets next is the answer to its next question.
        assert isinstance(ask(first, GetStatus(request_id=2)), StatusReport)


def test_a_result_that_was_sent_and_not_acknowledged_is_sent_again(
    server: Server, client: Client, tmp_path: Path
) -> None:
    with greeted_connection(server) as first:
        first.sendall(encode_frame(_submission("one", tasks.double, 4)))
        accepted, pushed = _messages(first, 2)
        assert isinstance(accepted, TasksAccepted)
        with greeted_connection(server) as second:
            second.sendall(encode_frame(WatchResults(request_id=7, task_ids=["one"])))
            watched, again = _messages(second, 2)
            assert watched == ResultsWatched(request_id=7)
            assert isinstance(again, ResultsPushed)
            assert [report.payload for report in again.reports] == [report.payload for report in pushed.reports]
            second.sendall(encode_frame(ResultsReceived(sequence=again.sequence)))
            wait_until(lambda: client.query_result("one", keep=True) is None)


def test_what_the_server_does_not_know_or_has_handed_over_is_said(server: Server, client: Client) -> None:
    with greeted_connection(server) as first, greeted_connection(server) as second:
        first.sendall(encode_frame(_submission("one", tasks.double, 4)))
        _, pushed = _messages(first, 2)
        first.sendall(encode_frame(ResultsReceived(sequence=pushed.sequence)))

        wait_until(lambda: client.query_result("one", keep=True) is None)
        answer = ask(second, WatchResults(request_id=7, task_ids=["never", "one"]))
        assert answer == ResultsWatched(request_id=7, unknown=["never", "one"])


def test_every_submission_is_accepted_once_alone_or_with_results(server: Server) -> None:
    key, data, name = dumps_function(tasks.double)
    with greeted_connection(server) as sock:
        reader: FrameReader[Any] = FrameReader(ServerAnswer)
        found: list[Any] = []
        for number in range(200):
            request = TaskRequest(f"t{number}", "call", key, dumps_call((number,), {}), name)
            options = TaskOptions(isolation="worker")
            submission = SubmitTasks(request_id=number, tasks=[request], functions={key: data}, options=options)
            sock.sendall(encode_frame(submission))
            if number % 3 == 0:  # else the next one comes before the result of this one
                while sum(isinstance(message, TasksAccepted) for message in found) <= number:
                    found += apart(reader.feed(sock.recv(1 << 16)))
        reports: set[str] = set()
        while len(reports) < 200:
            found += apart(reader.feed(sock.recv(1 << 16)))
            pushed = [message for message in found if isinstance(message, ResultsPushed)]
            reports = {report.task_id for message in pushed for report in [*message.reports, *message.returned]}
        assert [message.request_id for message in found if isinstance(message, TasksAccepted)] == list(range(200))
