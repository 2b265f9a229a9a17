"""What is read from the stream of a connection: by one thread at a time, its leader."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palpable._connection.inbox import Inbox
from palpable._connection.outbox import DONT_WAIT
from palpable._connection.readiness import wait_until_ready
from palpable._wire.framing import FrameError

if TYPE_CHECKING:
    from palpable._connection.tls_stream import TlsStream


class Receiver:
    """Reads messages and delivers them.

    Args:
        inbox: keeps what has come, also from before.
        deliver: called with every message.
        on_error: called with the reason when nothing can be read any more.
    """

    def __init__(
        self,
        stream: socket.socket | TlsStream,
        inbox: Inbox,
        deliver: Callable[[Any], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._stream = stream
        self._recv: Callable[[int, int], bytes] = stream.recv
        self._inbox = inbox
        self._deliver = deliver
        self._on_error = on_error

    @property
    def has_more(self) -> bool:
        """Whether there may be something to deliver without reading the socket."""
        return self._inbox.may_hold_messages or getattr(self._stream, "has_more", False)

    def read(self, timeout_seconds: float | None) -> None:
        """Read once, at most `timeout_seconds` later, and deliver what is complete."""
        inbox = self._inbox
        try:
            if not inbox.may_hold_messages:  # else the last reader was interrupted in the middle
                flags = 0
                if timeout_seconds is not None:
                    if not wait_until_ready((self._stream,), (), timeout_seconds):
                        return
                    flags = DONT_WAIT
                if not inbox.receive(self._recv, flags):
                    self._on_error("the server closed the connection")
                    return
            inbox.dispatch_each(self._deliver)
        except BlockingIOError:
            inbox.may_hold_messages = False
        except FrameError as error:
            self._on_error(f"what it sent is not understood ({error})")
        except (OSError, ValueError) as error:
            self._on_error(str(error))

    def look(self) -> None:
        """See whether the other end was closed; reads nothing. For any thread, while nobody reads."""
        try:
            if not DONT_WAIT and not wait_until_ready((self._stream,), (), 0.0):
                return
            if self._recv(1, DONT_WAIT | socket.MSG_PEEK) == b"":
                self._on_error("the server closed the connection")
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            self._on_error(str(error))
