"""What a client does with the messages that come."""

from __future__ import annotations

from typing import Any

import pytest

from palpable._connection.incoming import Incoming
from palpable._connection.outbox import Outbox
from palpable._connection.pending import Pending
from palpable._connection.waiting import Request
from palpable._wire.messages import (
    GetStatus,
    ResultsPushed,
    TaskOptions,
    TaskReport,
    TaskRequest,
    TaskReturned,
    TasksAccepted,
)


class Taker:
    def __init__(self) -> None:
        self.taken: list[Any] = []

    def take(self, report: Any) -> bool:
        self.taken.append(report)
        return True

    def finish(self, report: Any) -> None:
        raise AssertionError

    def fail(self, error: Exception) -> bool:
        raise AssertionError

    def finish_failed(self, error: Exception) -> None:
        raise AssertionError


@pytest.fixture
def pending() -> Pending:
    return Pending()


@pytest.fixture
def outbox(pending: Pending) -> Outbox:
    return Outbox(pending)


@pytest.fixture
def incoming(pending: Pending, outbox: Outbox) -> Incoming:
    return Incoming(pending, outbox, lambda: None)


def submit(outbox: Outbox, task_id: str) -> Taker:
    taker = Taker()
    outbox.add_task(TaskRequest(task_id, "call", "key", b""), b"function", TaskOptions(), taker=taker)
    outbox.flush(lambda data, flags: len(data), None)
    return taker


def test_results_of_both_kinds_reach_those_who_submitted(incoming: Incoming, outbox: Outbox) -> None:
    first, second = submit(outbox, "a"), submit(outbox, "b")
    failed = TaskReport("b", "failed", "crashed")
    returned = TaskReturned("a", b"x", 0.1, 0.2, 3, 4, 5, 6)
    assert incoming.handle(ResultsPushed(sequence=1, reports=[failed], returned=[returned]))
    assert (first.taken, second.taken) == ([returned], [failed])


def test_an_acceptance_that_comes_with_results_is_one(incoming: Incoming, outbox: Outbox) -> None:
    submit(outbox, "a")
    submit(outbox, "b")
    first, second = outbox.unanswered
    assert incoming.handle(ResultsPushed(sequence=1, accepted=[first]))
    assert list(outbox.unanswered) == [second]
    assert incoming.handle(TasksAccepted(request_id=second))
    assert not outbox.unanswered and not outbox.expects_acceptance


def test_it_answers_who_asked_for_it(incoming: Incoming, outbox: Outbox) -> None:
    request = Request(outbox.new_request_id())
    outbox.ask(request, GetStatus(request_id=request.request_id))
    incoming.handle(ResultsPushed(sequence=1, accepted=[request.request_id]))
    assert request.is_done() and request.answer == TasksAccepted(request_id=request.request_id)


def test_what_was_not_asked_for_is_not_taken(incoming: Incoming) -> None:
    assert not incoming.handle(GetStatus(request_id=1))
