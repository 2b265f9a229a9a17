"""Bytes received and not yet dealt with, in an order of steps that a Ctrl-C between any two of them does not harm.

A KeyboardInterrupt can end a blocked call after any bytecode. If it came between "the kernel handed over the bytes"
and "the bytes are kept", a result would be lost, and every message after it torn. So receiving is a single call into
C, after which the bytes are in the buffer; a message is decoded, dispatched, and only then passed over. Who comes
next begins where the last one was interrupted, and at worst dispatches one message a second time: the same object,
which every receiver allows for.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from palpable._wire.framing import COPIED_BYTES, DEFAULT_LIMIT_BYTES, FrameError

_LENGTH = struct.Struct("<I")
SMALL_READ_BYTES = 1 << 16
"""Below malloc's threshold for mapping pages anew at every read."""
LARGE_READ_BYTES = 1 << 20


class Inbox:
    """What came over a socket, as messages.

    Only the leader of the connection may use it.

    Args:
        type: the message type, or union of types, of this conversation.
        first_bytes: what was received before.
    """

    def __init__(self, type: Any, first_bytes: bytes | bytearray = b"", limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._decoder = msgspec.msgpack.Decoder(type)
        # Buffer, position of the first frame in it that is not dispatched, and the message in that frame, once it is
        # decoded: one tuple, so that all change at once.
        self._cursor: tuple[bytearray, int, Any] = (bytearray(first_bytes), 0, None)
        self._is_receiving = False
        self._read_bytes = SMALL_READ_BYTES
        self._limit_bytes = limit_bytes
        self.may_hold_messages = bool(first_bytes)
        """Whether `dispatch_each` was not called, or was interrupted, since something was received."""

    def receive(self, recv: Callable[[int, int], bytes], flags: int = 0) -> bool:
        """Call `recv` once and keep what it returns; return False if that was nothing, the end of the stream.

        Raises:
            OSError: from `recv`; nothing was received.
        """
        was_receiving = self._is_receiving
        try:
            self._is_receiving = True
            buffer = self._cursor[0]
            before = len(buffer)
            self.may_hold_messages = True
            # One call into C from recv to +=. CPython runs signal handlers between bytecodes, and inside recv only
            # while it has no data. So no interrupt falls between the two.
            deque(map(buffer.__iadd__, map(recv, (self._read_bytes,), (flags,))), maxlen=0)
            received = len(buffer) - before
        finally:
            self._is_receiving = was_receiving
        self._read_bytes = LARGE_READ_BYTES if received == self._read_bytes else SMALL_READ_BYTES
        return received > 0

    def dispatch_each(self, dispatch: Callable[[Any], None]) -> None:
        """Call `dispatch` with every whole message, in order.

        Raises:
            FrameError: the bytes are no frame of this conversation.
        """
        while True:
            cursor = self._cursor
            buffer, start, message = cursor
            end = len(buffer)
            if end - start < 4:
                break
            size = _LENGTH.unpack_from(buffer, start)[0]
            if size > self._limit_bytes:
                raise FrameError(f"a frame of {size} bytes is over the limit of {self._limit_bytes} bytes")
            stop = start + 4 + size
            if stop > end:
                break
            if message is None:
                try:
                    if size <= COPIED_BYTES:  # as in `framing`
                        message = self._decoder.decode(buffer[start + 4 : stop])
                    else:
                        # The view is gone before anything else happens: a bytearray with a view on it can't grow.
                        with memoryview(buffer) as view, view[start + 4 : stop] as body:
                            message = self._decoder.decode(body)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise FrameError(f"a frame is not a message of this conversation: {error}") from None
                # Made before the look at the cursor: for a tuple the garbage collector may run somebody's `__del__`.
                decoded = (buffer, start, message)
                # A signal handler that used this connection may have dispatched for us meanwhile.
                if self._cursor is not cursor:
                    continue
                self._cursor = cursor = decoded
            dispatch(message)
            passed = (buffer, stop, None)
            if self._cursor is cursor:  # as above
                self._cursor = passed
        # A signal handler may come in the middle of recv, and receive and dispatch here. Whoever was in recv goes on
        # then, and adds to the buffer that it found: so this stays the one.
        if start and not self._is_receiving:
            rest = (buffer[start:], 0, None)
            if self._cursor is cursor:
                self._cursor = rest
        self.may_hold_messages = False
