"""How a connection waits for what comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from palpable._connection import receiver
from palpable._connection.inbox import Inbox
from palpable._connection.outbox import DONT_WAIT
from palpable._connection.receiver import Receiver
from palpable._wire.framing import encode_frame
from palpable._wire.messages import Done, ServerAnswer


class Stream:
    """A socket from which something comes at the third look, or to whoever sleeps."""

    def __init__(self) -> None:
        self.flags: list[int] = []
        self._looks = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.flags.append(flags)
        self._looks += 1
        if flags and self._looks < 3:
            raise BlockingIOError
        self._looks = 0
        return bytes(encode_frame(Done(request_id=1)))


@pytest.fixture
def stream() -> Iterator[Stream]:
    yield Stream()


def _receiver(stream: Stream, delivered: list[object]) -> Receiver:
    return Receiver(stream, Inbox(ServerAnswer), delivered.append, lambda reason: pytest.fail(reason))  # type: ignore[arg-type]


def test_after_a_short_wait_it_looks_before_it_sleeps(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "CAN_LOOK", True)
    monkeypatch.setattr(receiver, "LOOK_SECONDS", 10.0)
    delivered: list[object] = []
    reader = _receiver(stream, delivered)
    reader.read(None)
    assert stream.flags == [0], "it does not know yet that answers come soon"
    reader.read(None)
    assert stream.flags == [0, DONT_WAIT, DONT_WAIT, DONT_WAIT]
    assert delivered == [Done(request_id=1)] * 2


def test_after_a_long_wait_it_sleeps_at_once(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "CAN_LOOK", True)
    monkeypatch.setattr(receiver, "LOOK_SECONDS", 0.0)
    reader = _receiver(stream, [])
    reader.read(None)
    reader.read(None)
    assert stream.flags == [0, 0]


def test_it_never_looks_where_it_would_take_the_core_from_the_server(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "CAN_LOOK", False)
    monkeypatch.setattr(receiver, "LOOK_SECONDS", 10.0)
    reader = _receiver(stream, [])
    reader.read(None)
    reader.read(None)
    assert stream.flags == [0, 0]
