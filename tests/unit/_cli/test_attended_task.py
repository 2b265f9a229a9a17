"""A task that the command line watches until it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, ServerUnreachable
from palpable._cli.attended_task import attend
from palpable._wire.messages import QueryResults, ReadLogs, ResultsFound, TaskReport
from support.fake_server import Conversation, FakeServer


@pytest.fixture
def client_of(tmp_path: Path) -> Iterator[tuple[FakeServer, Client]]:
    with FakeServer(tmp_path) as server, Client(server.address, None, b"key", reconnect_seconds=0) as client:
        yield server, client


def test_how_a_task_ended_counts_though_the_server_closed_before_the_end_of_its_output(
    client_of: tuple[FakeServer, Client],
) -> None:
    server, client = client_of
    report = TaskReport("t1", "failed", "quit")

    def answer(conversation: Conversation, request: QueryResults) -> bool:
        conversation.send(ResultsFound(request_id=request.request_id, reports=[report]))
        return True

    server.hooks[QueryResults] = answer
    server.hooks[ReadLogs] = _close
    printed: list[str] = []
    assert attend(client._get_connection(), "t1", printed.append) == report


def test_a_server_that_closed_without_an_answer_is_unreachable(client_of: tuple[FakeServer, Client]) -> None:
    server, client = client_of
    server.hooks[QueryResults] = lambda conversation, request: True
    server.hooks[ReadLogs] = _close
    with pytest.raises(ServerUnreachable):
        attend(client._get_connection(), "t1", print)


def _close(conversation: Conversation, request: Any) -> bool:
    conversation.server.drop_connections()
    return True
