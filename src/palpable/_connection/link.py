"""One socket to the server, after the handshake: what is sent over it, what came, and its end.

It breaks once, for good. A connection that goes on has a new link then (`connection`).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palpable._connection.inbox import Inbox
from palpable._connection.incoming import Incoming
from palpable._connection.outbox import Outbox
from palpable._connection.receiver import Receiver
from palpable._connection.sender import Sender

if TYPE_CHECKING:
    from palpable._connection.background import Background
    from palpable._connection.pending import Pending
    from palpable._connection.tls_stream import TlsStream


class Link:
    """A socket, and its two directions.

    Args:
        stream: the socket, blocking, or a `TlsStream`.
        first_bytes: what was read from it already.
        conversation: the type of what comes.
        is_direct: callers read and write; else only the background thread.
        on_other: called with messages that are no answers.
        on_break: called once, with the link, when it has broken.
    """

    def __init__(
        self,
        stream: socket.socket | TlsStream,
        first_bytes: bytes | bytearray,
        conversation: Any,
        pending: Pending,
        background: Background,
        *,
        is_direct: bool,
        on_other: Callable[[Any], None] | None,
        on_break: Callable[[Link], None],
    ) -> None:
        self.stream = stream
        self.outbox = Outbox(pending)
        self.broken = ""
        """Why it is, if it is."""
        self.incoming = Incoming(pending, self.outbox, lambda: self.sender.flush(wait=False))
        inbox = Inbox(conversation, first_bytes, limit_bytes=(1 << 32) - 1)
        self._receiver = Receiver(stream, inbox, self._deliver, self.break_off)
        self.sender = Sender(stream, self.outbox, background, is_direct=is_direct, on_error=self.break_off)
        self._on_other = on_other
        self._on_break = on_break
        # Reentrant: a signal handler, or the garbage collector, may come back here.
        self._lock = threading.RLock()
        self._readers = 0
        self._is_closed = False

    # --- reading: its leader only ---------------------------------------------------------------------------------

    def read(self, timeout_seconds: float | None) -> None:
        """Read once, at most `timeout_seconds` later, and deliver what is complete. Breaks off what can't be read."""
        with self._lock:
            is_open = not self.broken
            if is_open:
                self._readers += 1
        if not is_open:
            # Perhaps whoever found that out was interrupted before it was told.
            self._on_break(self)
            return
        try:
            self._receiver.read(timeout_seconds)
        finally:
            self._readers -= 1
            if self.broken:
                self.dispose()

    @property
    def has_more(self) -> bool:
        """Whether there may be something to deliver without reading the socket."""
        return self._receiver.has_more

    def look(self) -> None:
        """See whether the other end was closed; reads nothing. For any thread, while nobody reads."""
        if not self.broken:
            self._receiver.look()

    def _deliver(self, message: Any) -> None:
        if not self.incoming.handle(message) and self._on_other is not None:
            self._on_other(message)

    # --- ends -----------------------------------------------------------------------------------------------------

    def break_off(self, reason: str) -> None:
        """It is broken; nothing is sent or received over it any more."""
        with self._lock:
            is_first = not self.broken
            if is_first:
                self.broken = reason
                self.sender.is_over = True
        if is_first:
            self._end()
        self.dispose()

    def _end(self) -> None:
        try:
            try:
                self.stream.shutdown(socket.SHUT_RDWR)  # ends the recv of whoever reads
            except OSError:
                pass  # it was not connected any more
            self._on_break(self)
        except BaseException:  # interrupted in the middle; nobody else would do the rest
            self._on_break(self)
            raise

    def dispose(self) -> None:
        """Close the socket of a broken link, once nobody uses it."""
        with self._lock:
            # While a thread is in recv or send, the number of the closed socket could be given to a new one, and the
            # thread would read from that. `shutdown` has sent them all home; the last to leave closes.
            if not self.broken or self._is_closed or self._readers or self.outbox.is_writing:
                return
            self._is_closed = True
        self.stream.close()

    def abandon(self, reason: str) -> None:
        """Give the socket back without a word: it is another process's, and so is whoever holds a lock here."""
        self._lock = threading.RLock()
        self.broken = reason
        self._is_closed = self.sender.is_over = True
        self.stream.close()
