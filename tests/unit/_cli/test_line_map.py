"""A function over lines, and a server that goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn

import pytest

from palpable import Client, ServerUnreachable
from palpable._cli.line_map import Line, LineMap
from palpable._wire.messages import CancelTasks, SubmitTasks
from support.fake_server import FakeServer
from support.wait import wait_until

LINES = [(1, 10), (2, 20)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path, is_durable=True) as server:
        server.hold()
        yield server


def _map(client: Client, params: Iterator[tuple[int, Any]]) -> LineMap:
    return LineMap(client, abs, params, window=8, is_ordered=True, before_waiting=lambda: None)  # type: ignore[arg-type]


def _submitted(server: FakeServer) -> list[str]:
    return [task.task_id for request in server.received_of(SubmitTasks) for task in request.tasks]


def _begin(lines: LineMap, server: FakeServer) -> list[str]:
    """Have the lines read, and return the ids of their tasks; nobody waits for results yet."""
    lines._thread.start()
    wait_until(lambda: len(_submitted(server)) == len(LINES))
    lines._thread.join(20)
    return _submitted(server)


def test_close_cancels_what_has_not_ended(server: FakeServer) -> None:
    with Client(server.address, None, b"key") as client:
        lines = _map(client, iter(LINES))
        task_ids = _begin(lines, server)
        assert lines.close() == []
        assert server.received_of(CancelTasks)[0].task_ids == task_ids


def test_close_makes_no_new_connection_to_a_durable_server_that_stayed_away_and_says_what_is_left(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server.address, None, b"key", reconnect_seconds=0.2) as client:
        lines = _map(client, iter(LINES))
        task_ids = _begin(lines, server)

        def dial_again(*_: object) -> NoReturn:
            raise AssertionError("it would wait for the server a second time")

        monkeypatch.setattr(client, "_dial", dial_again)
        server.close()
        line = lines._arrivals.get()
        assert isinstance(line, Line)
        line.future._wait(20)
        with pytest.raises(ServerUnreachable):
            line.report()
        assert lines.close() == task_ids


def test_close_does_not_wait_for_the_thread_that_waits_for_the_server(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line came while the server was away and nothing was expected of it: its submission connects again."""
    with Client(server.address, None, b"key") as client:
        lines = _map(client, iter(LINES[:1]))
        is_dialling, may_fail = Event(), Event()

        def dial_patiently(*_: object) -> NoReturn:
            is_dialling.set()
            may_fail.wait(20)
            raise ServerUnreachable("gone")

        monkeypatch.setattr(client, "_connect", dial_patiently)
        lines._thread.start()
        assert is_dialling.wait(20)
        closing = Thread(target=lines.close)
        closing.start()
        closing.join(10)
        was_closed = not closing.is_alive()
        may_fail.set()
        closing.join(20)
        lines._thread.join(20)
        assert was_closed
