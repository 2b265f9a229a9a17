"""What a peer asks while much of what it was answered is unread."""

from __future__ import annotations

from collections import deque
from typing import Any

from palpable._wire.messages import CancelTasks, GetStatus
from palpable.servants.intake import OVERTAKING_MAX, UNREAD_MAX_BYTES, WAITING_MAX, Intake


class Peer:
    """Notes what is handled, and whether it is read from."""

    def __init__(self) -> None:
        self.unread = 0
        self.handled: list[int] = []
        self.is_read = True
        self.intake = Intake(self._handle, lambda: self.unread, self._set_reading)

    def _handle(self, messages: deque[Any]) -> None:
        waiting = []
        while messages:
            message = messages.popleft()
            if self.intake.must_wait(message):
                waiting.append(message)
            else:
                self.handled.append(message.request_id)
        messages.extend(waiting)

    def _set_reading(self, is_on: bool) -> None:
        self.is_read = is_on

    def asks(self, number: int) -> None:
        self.intake.take([GetStatus(request_id=number)])

    def cancels(self, number: int) -> None:
        self.intake.take([CancelTasks(request_id=number, task_ids=["t"])])


def test_what_has_a_large_answer_waits_until_the_peer_has_read() -> None:
    peer = Peer()
    peer.asks(1)
    peer.unread = UNREAD_MAX_BYTES + 1
    peer.asks(2)
    assert peer.handled == [1]
    peer.unread = 0
    peer.intake.go_on()
    assert peer.handled == [1, 2] and not peer.intake.messages


def test_a_cancellation_overtakes_it_and_is_read_at_all() -> None:
    peer = Peer()
    peer.unread = UNREAD_MAX_BYTES + 1
    peer.asks(1)
    assert peer.is_read
    peer.cancels(2)
    assert peer.handled == [2]


def test_nothing_more_is_read_when_too_much_waits() -> None:
    peer = Peer()
    peer.unread = UNREAD_MAX_BYTES + 1
    for number in range(WAITING_MAX):
        peer.asks(number)
    assert not peer.is_read
    peer.unread = 0
    peer.intake.go_on()
    assert peer.is_read and peer.handled == list(range(WAITING_MAX))


def test_nor_from_one_who_cancels_without_end() -> None:
    peer = Peer()
    peer.unread = UNREAD_MAX_BYTES + 1
    for number in range(OVERTAKING_MAX + 2):
        peer.cancels(number)
    assert len(peer.handled) == OVERTAKING_MAX and not peer.is_read
    peer.unread = 0
    peer.intake.go_on()
    assert len(peer.handled) == OVERTAKING_MAX + 2 and peer.is_read
