"""What the server's end of a client connection writes, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from palpable._wire.framing import FrameReader
from palpable._wire.messages import ResultsFound, ResultsPushed, ServerAnswer, TaskReport, TasksAccepted
from palpable.servants.client_session import HOLD_SECONDS, Admission, ClientSession


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def said(loop: asyncio.AbstractEventLoop, *messages: Any, wait_seconds: float = 0.0) -> list[Any]:
    """Return what a client reads, as messages, after the session was told to send these."""
    transport: Any = Transport()

    async def send() -> None:
        requests: Any = None
        session = ClientSession(Admission(b"key", {}, "", requests, 1 << 20))
        session._transport = transport
        for message in messages:
            session.send(message)
        await asyncio.sleep(wait_seconds)

    loop.run_until_complete(send())
    reader: FrameReader[Any] = FrameReader(ServerAnswer)
    return reader.feed(bytes(transport.written))


def test_an_acceptance_travels_in_the_frame_of_the_next_results(loop: asyncio.AbstractEventLoop) -> None:
    report = TaskReport("t", "succeeded")
    pushed = ResultsPushed(sequence=3, reports=[report])
    first, second, third = said(
        loop, TasksAccepted(request_id=1), TasksAccepted(request_id=2), pushed, pushed, TasksAccepted(request_id=3),
        wait_seconds=20 * HOLD_SECONDS,
    )  # fmt: skip
    assert first == ResultsPushed(sequence=3, reports=[report], accepted=[1, 2])
    assert second == pushed
    assert third == TasksAccepted(request_id=3)


def test_an_acceptance_is_sent_before_an_answer_of_another_kind(loop: asyncio.AbstractEventLoop) -> None:
    found = ResultsFound(request_id=2, reports=[])
    assert said(loop, TasksAccepted(request_id=1), found) == [TasksAccepted(request_id=1), found]


def test_an_acceptance_that_no_result_follows_is_sent_by_itself(loop: asyncio.AbstractEventLoop) -> None:
    assert said(loop, TasksAccepted(request_id=1)) == []
    assert said(loop, TasksAccepted(request_id=1), wait_seconds=20 * HOLD_SECONDS) == [TasksAccepted(request_id=1)]
