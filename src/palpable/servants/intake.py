"""What a peer asks, handled as fast as the peer reads the answers.

Runs in: the server process.

A peer that asks and never reads would have the server keep all its answers. So what has a large answer waits once much
is unread, and when too much waits, what the peer sends is left in the socket: it is the peer that waits then, nobody
else. It goes on when it has read nearly all of that. What is pushed to it unasked, results, has a limit of its own
(`delivery`).

What has no large answer does not wait: that a task has ended, that something is cancelled or no longer wanted. Whoever
says so may not mean to read any more. So it overtakes what waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from palpable._wire.messages import GetStatus, ListTasks, QueryResults, ReadLogs

UNREAD_MAX_BYTES = 1 << 20
"""Answers that may lie here, beyond what the kernel holds, when the next request is handled. So a peer costs this much,
and one more answer."""
HAVE_LARGE_ANSWERS = frozenset({GetStatus, ListTasks, QueryResults, ReadLogs})
WAITING_MAX = 64
"""Requests that may wait here, before no more is read."""
OVERTAKING_MAX = 10_000
"""Requests without large answers that are handled in a row while much is unread. Who sends more wants no answers."""
LISTED_TASK_BYTES = 500
"""What a task takes in the answer to a question for lists, roughly."""


class Intake:
    """The messages of one peer that are not handled yet, in order.

    Args:
        handle: handles messages from the left of the deque and takes them out, except those that have to wait.
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
        self._overtaking = 0
        self._is_handling = False
        self._is_reading = True

    @property
    def is_congested(self) -> bool:
        """Whether much is unread."""
        return self._unread_bytes() + self._owed_bytes > UNREAD_MAX_BYTES

    def must_wait(self, request: Any) -> bool:
        """Whether this request has to wait until the peer has read. To be asked of each, before it is handled."""
        if not self.is_congested:
            self._overtaking = 0
            return False
        if type(request) in HAVE_LARGE_ANSWERS:
            return True
        self._overtaking += 1
        return self._overtaking > OVERTAKING_MAX

    def take(self, messages: Iterable[Any]) -> None:
        """These have come."""
        self.messages.extend(messages)
        self.go_on()

    def go_on(self) -> None:
        """Handle what can be, and read more unless too much waits. To be called when the peer has read."""
        if self._is_handling:  # by an answer given at once
            return
        self._is_handling = True
        try:
            self._handle(self.messages)
        finally:
            self._is_handling = False
        is_to_read = not self.messages or (
            self.is_congested and self._overtaking <= OVERTAKING_MAX and len(self.messages) < WAITING_MAX
        )
        if self._is_reading is not is_to_read:
            self._is_reading = is_to_read
            self._set_reading(is_to_read)

    def owe(self, count: int) -> None:
        """The peer is owed an answer of so many bytes, which waits for the disk; negative: it has got it."""
        self._owed_bytes += count
        if self.messages:
            self.go_on()
