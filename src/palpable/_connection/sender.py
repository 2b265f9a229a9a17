"""When what is queued leaves, and on which thread.

A caller sends by itself when nothing was sent for a millisecond, so that a single call leaves at once. In a loop of
submits the tasks are gathered (`outbox`) and leave together: when the batch is full, when a millisecond is over, when
somebody waits, or, after the last of them, by the background thread. Where callers may not touch the stream (TLS), it
sends everything.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from palpable._connection.outbox import Outbox
from palpable._connection.readiness import wait_until_ready

if TYPE_CHECKING:
    from palpable._connection.background import Background
    from palpable._connection.tls_stream import TlsStream

GATHER_SECONDS = 0.001
"""How long a submitted task may wait for others to travel with it."""
ACKNOWLEDGE_SECONDS = 0.005
"""How long an acknowledgement may wait for something to travel with it."""


class Sender:
    """Sends what is in the outbox of a connection. Safe to use from every thread.

    Args:
        is_direct: callers send; else only the background thread.
        on_error: called with the reason when the stream is broken.
    """

    def __init__(
        self,
        stream: socket.socket | TlsStream,
        outbox: Outbox,
        background: Background,
        *,
        is_direct: bool,
        on_error: Callable[[str], None],
    ) -> None:
        self._stream = stream
        self._send: Callable[[Any, int], int] = stream.send
        self._outbox = outbox
        self._background = background
        self._is_direct = is_direct
        self._on_error = on_error
        self._flushed_at = 0.0
        self.is_blocked = False
        """Whether the background thread is to go on as soon as the stream takes more."""
        self.is_waiting = False
        """Whether a thread can't go on before the stream takes more."""
        self.is_over = False
        """Whether the stream is broken: nothing is sent any more."""

    @property
    def is_time(self) -> bool:
        """Whether what is gathered has waited long enough."""
        return monotonic() - self._flushed_at > GATHER_SECONDS

    def flush(self, *, wait: bool = True) -> None:
        """Send everything that is queued.

        Args:
            wait: whether to wait while the stream takes no more; else the background thread sends the rest.
        """
        if self.is_over or not self._outbox.has_unsent:
            return
        if not self._is_direct:
            self._background.wake()
            return
        self._flushed_at = monotonic()
        self._flush(self._wait_writable if wait else None)
        if self.is_blocked:
            self._background.wake()

    def flush_completely(self) -> None:
        """As `flush`, and return only when another thread, if one was in the middle of sending, has sent ours too."""
        self.flush()
        while self._outbox.is_written_elsewhere and not self.is_over:
            # It waits for the stream, as we do now; or it is about to go on, for which it needs the interpreter.
            try:
                wait_until_ready((), (self._stream,), 0.01)
            except (OSError, ValueError):
                return  # broken; that thread finds out too
        self.flush()

    def flush_lingering(self, now: float, *, at_once: bool) -> float | None:
        """On the background thread: send what has waited long enough.

        Returns:
            In how many seconds to come again; None: when woken, or when the stream takes more (`is_blocked`).
        """
        if self.is_over or not self._outbox.has_unsent:
            self.is_blocked = False
            return None
        pause = GATHER_SECONDS if self._outbox.has_tasks else ACKNOWLEDGE_SECONDS
        since = now - self._flushed_at
        if since < pause and not (at_once or self.is_blocked) and self._is_direct:
            return pause - since
        self._flushed_at = now
        self._flush(None)
        return None

    def flush_at_end(self, seconds: float) -> None:
        """Send everything, for at most `seconds`. What can't be sent is lost with the connection."""
        deadline = monotonic() + seconds

        def wait_writable() -> None:
            left = deadline - monotonic()
            if left <= 0 or not wait_until_ready((), (self._stream,), left):
                raise TimeoutError("the server does not read")

        try:
            if self._is_direct:
                self._outbox.flush(self._send, wait_writable)
                while self._outbox.is_written_elsewhere and not self.is_over:
                    # The background thread is in the middle of it, and would find the stream closed for the rest. It
                    # waits for the stream, as we do now; or it is about to go on, for which it needs the interpreter.
                    wait_writable()
                    sleep(0.001)
                    self._outbox.flush(self._send, wait_writable)
                return
            self._background.wake()
            while self._outbox.has_unsent and self._background.is_running and not self.is_over:
                wait_writable()
        except (OSError, ValueError):
            pass

    def _flush(self, wait_writable: Callable[[], None] | None) -> None:
        try:
            self.is_blocked = not self._outbox.flush(self._send, wait_writable)
        except (OSError, ValueError) as error:
            self._on_error(str(error))
        if self.is_over:
            self._on_error("")  # it broke meanwhile, and we were the last who used it

    def _wait_writable(self) -> None:
        # The server may be waiting until we read: somebody must, while this thread waits to send.
        self.is_waiting = True
        try:
            self._background.read_at_once()
            wait_until_ready((), (self._stream,))
        finally:
            self.is_waiting = False
