"""What a peer asks, handled as fast as the peer reads the answers.

Runs in: the server process.

A peer that asks and never reads would have the server keep all its answers. So what it sends is left in the socket
once much is unread, and it is the peer that waits then, nobody else. It goes on when it has read nearly all of that.
What is pushed to it unasked, results, has a limit of its own (`delivery`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

UNREAD_MAX_BYTES = 1 << 20
"""Answers that may lie here, beyond what the kernel holds, when the next request is handled. So a peer costs this much,
and one more answer."""
LISTED_TASK_BYTES = 500
"""What a task takes in the answer to a question for lists, roughly."""


class Intake:
    """The messages of one peer that are not handled yet, in order.

    Args:
        handle: handles messages from the left of the deque and takes them out, until it is empty or `is_congested`.
        unread_bytes: how many bytes of answers wait to be read by the peer.
        set_reading: called with False when nothing more is to be read from the peer, and with True when it is again.
    """

    def __init__(
        self,
        handle: Callable[[deque[Any]], None],
        unread_bytes: Callable[[], int],
        set_reading: Callable[[bool], None],
    ) -> None:
        self.messages: deque[Any] = deque()
        self._handle = handle
        self._unread_bytes = unread_bytes
        self._set_reading = set_reading
        self._owed_bytes = 0
        self._is_handling = False
        self._is_reading = True

    @property
    def is_congested(self) -> bool:
        """Whether the next request has to wait."""
        return self._unread_bytes() + self._owed_bytes > UNREAD_MAX_BYTES

    def take(self, messages: Iterable[Any]) -> None:
        """These have come."""
        self.messages.extend(messages)
        self.go_on()

    def go_on(self) -> None:
        """Handle what can be, and read more once that is everything. To be called when the peer has read."""
        if self._is_handling:  # by an answer given at once
            return
        self._is_handling = True
        try:
            self._handle(self.messages)
        finally:
            self._is_handling = False
        if self._is_reading is bool(self.messages):
            self._is_reading = not self._is_reading
            self._set_reading(self._is_reading)

    def owe(self, count: int) -> None:
        """The peer is owed an answer of so many bytes, which waits for the disk; negative: it has got it."""
        self._owed_bytes += count
        if self.messages:
            self.go_on()
