"""A log that is asked for again, over another connection, goes on where it was; unless it is another log by then."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from palpable._connection.inbox import Inbox
from palpable._connection.incoming import Incoming
from palpable._connection.outbox import Outbox
from palpable._connection.pending import Pending
from palpable._connection.waiting import COMPARED_BYTES, LogRequest
from palpable._wire.framing import encode_frame
from palpable._wire.messages import LogChunk, ReadLogs, ServerAnswer


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


class Interrupt:
    """A Ctrl-C between two steps of the interpreter in the code of Palpable: before the one of that number."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if "palpable" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def interrupted(read: Callable[[], object], number: int) -> bool:
    """Call `read`; return whether it was interrupted before it had that many steps."""
    traced = sys.gettrace()  # e.g. of coverage
    # Python 3.12 shows single steps from the first `settrace` on that comes after a frame has asked for them.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(Interrupt(number))
    try:
        read()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(traced)
    return False


@pytest.mark.parametrize("is_asked_again", [False, True])
def test_a_reader_that_is_interrupted_anywhere_loses_no_piece_and_tells_none_twice(is_asked_again: bool) -> None:
    log = [b"one\n", b"two\n", b"three\n"]
    for number in itertools.count(1):
        pending = Pending()
        outbox = Outbox(pending)
        incoming = Incoming(pending, outbox, lambda: None)
        request = LogRequest(outbox.new_request_id())
        outbox.ask(request, ReadLogs(request_id=request.request_id, task_id="t", follow=True))
        said = []
        if is_asked_again:
            request.add(LogChunk(request_id=request.request_id, data=log[0] + log[1][:2]), outbox)
            said += request.take_pieces()
            request.ask_again(0.0, outbox)
        pieces = [
            LogChunk(request_id=request.request_id, data=data, is_last=place == 2) for place, data in enumerate(log)
        ]
        inbox = Inbox(ServerAnswer, b"".join(bytes(encode_frame(piece)) for piece in pieces))
        was_interrupted = interrupted(lambda: inbox.dispatch_each(incoming.handle), number)  # noqa: B023 - called at once
        said += request.take_pieces()  # somebody else is faster than the next reader
        inbox.dispatch_each(incoming.handle)
        said += request.take_pieces()
        assert b"".join(piece.data for piece in said) == b"".join(log)
        assert [piece.is_last for piece in said].count(True) == 1
        assert request.received_bytes == len(b"".join(log))
        assert request.is_done()
        if not was_interrupted:
            break
    assert number > 300


def test_a_signal_handler_that_reads_while_a_piece_is_added_has_it_told_once() -> None:
    for number in itertools.count(1):
        request = _request()
        pieces = [LogChunk(request_id=1, data=data) for data in (b"one ", b"two ")]
        calls = itertools.count(1)

        def handle(frame: FrameType, event: str, _: object) -> None:
            # Handlers run after calls: there the interpreter looks for signals.
            if event in ("c_return", "return") and next(calls) == number:  # noqa: B023 - called at once
                sys.setprofile(None)
                for piece in pieces:  # noqa: B023
                    request.add(piece, "first")  # noqa: B023

        sys.setprofile(handle)
        request.add(pieces[0], "first")
        sys.setprofile(None)
        is_over = next(calls) <= number
        if is_over:
            break
        assert _said(request) == b"one two "
    assert number > 5
