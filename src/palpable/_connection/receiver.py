"""What is read from the stream of a connection: by one thread at a time, its leader."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from palpable._connection.inbox import Inbox
from palpable._connection.outbox import DONT_WAIT
from palpable._connection.readiness import wait_until_ready
from palpable._wire.framing import FrameError

if TYPE_CHECKING:
    from palpable._connection.tls_stream import TlsStream

LOOK_SECONDS = 0.0002
"""How long a caller looks for an answer before it sleeps: a call in a kept process takes less, a fresh process more."""
sched_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
CAN_LOOK = bool(DONT_WAIT) and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1
"""With a single core to run on, to look is to keep the server from answering."""


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
        self._was_short = False

    @property
    def has_more(self) -> bool:
        """Whether there may be something to deliver without reading the socket."""
        return self._inbox.may_hold_messages or getattr(self._stream, "has_more", False)

    def read(self, timeout_seconds: float | None) -> None:
        """Read once, at most `timeout_seconds` later, and deliver what is complete."""
        inbox = self._inbox
        try:
            if not inbox.may_hold_messages:  # else the last reader was interrupted in the middle
                if timeout_seconds is None:
                    is_open = self._receive_soon()
                elif wait_until_ready((self._stream,), (), timeout_seconds):
                    is_open = inbox.receive(self._recv, DONT_WAIT)
                else:
                    return
                if not is_open:
                    self._on_error("the server closed the connection")
                    return
            inbox.dispatch_each(self._deliver)
        except BlockingIOError:
            inbox.may_hold_messages = False
        except FrameError as error:
            self._on_error(f"what it sent is not understood ({error})")
        except (OSError, ValueError) as error:
            self._on_error(str(error))

    def _receive_soon(self) -> bool:
        """Receive; if the last time was a short wait, look again and again for a moment before going to sleep.

        To be woken takes longer than a small task does, most of all where a core that idles is slow to wake. A look
        gives way to whoever else wants the core, and who waits for long does so asleep, as before.
        """
        began = monotonic()
        inbox, recv = self._inbox, self._recv
        if self._was_short:
            while monotonic() - began < LOOK_SECONDS:
                try:
                    return inbox.receive(recv, DONT_WAIT)
                except BlockingIOError:
                    sched_yield()
        is_open = inbox.receive(recv)
        self._was_short = CAN_LOOK and monotonic() - began < LOOK_SECONDS
        return is_open

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
