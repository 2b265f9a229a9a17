"""A log that is asked for again, over another connection, goes on where it was; unless it is another log by then."""

from __future__ import annotations

import pytest

from palpable._connection.waiting import COMPARED_BYTES, LogRequest
from palpable._wire.messages import LogChunk, ReadLogs


def _request() -> LogRequest:
    request = LogRequest(1)
    request.message = ReadLogs(request_id=1, task_id="t", follow=True)
    request.way = "first"
    return request


def _feed(request: LogRequest, data: bytes, way: str, *, size: int = 10_000, is_last: bool = False) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    for number, piece in enumerate(pieces):
        assert request.add(LogChunk(request_id=1, data=piece, is_last=is_last and number == len(pieces) - 1), way)


def _said(request: LogRequest) -> bytes:
    return b"".join(piece.data for piece in request.take_pieces())


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_is_here_already_is_passed_over(size: int) -> None:
    request = _request()
    _feed(request, b"one two ", "first")
    request.ask_again(0.0, "second")
    _feed(request, b"one two three", "second", size=size, is_last=True)
    assert _said(request) == b"one two three"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_another_attempt_prints_is_told_from_its_beginning(size: int) -> None:
    request = _request()
    _feed(request, b"attempt 1, ", "first")
    request.ask_again(0.0, "second")
    _feed(request, b"attempt 2, done", "second", size=size, is_last=True)
    assert _said(request) == b"attempt 1, attempt 2, done"
    assert request.received_bytes == len(b"attempt 1, attempt 2, done")


def test_another_attempt_that_prints_less_is_told_too() -> None:
    request = _request()
    _feed(request, b"a long beginning", "first")
    request.ask_again(0.0, "second")
    _feed(request, b"short", "second", is_last=True)
    assert _said(request) == b"a long beginningshort"


def test_a_connection_that_breaks_again_and_again_repeats_and_loses_nothing() -> None:
    request, log = _request(), bytes(range(256)) * 1000
    assert len(log) > COMPARED_BYTES
    _feed(request, log[:100_000], "first")
    for way, end in (("second", 50), ("third", 100_000), ("fourth", 70_000), ("fifth", 200_000), ("sixth", 10)):
        request.ask_again(0.0, way)
        _feed(request, log[:end], way)
    request.ask_again(0.0, "last")
    _feed(request, log, "last", is_last=True)
    assert _said(request) == log


def test_what_comes_by_the_old_way_does_not_count() -> None:
    request = _request()
    request.ask_again(0.0, "second")
    assert not request.add(LogChunk(request_id=1, data=b"late"), "first")
    _feed(request, b"new", "second", is_last=True)
    assert _said(request) == b"new"
