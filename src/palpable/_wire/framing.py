"""Frames: a four-byte little-endian length, then that many bytes of msgpack."""

from __future__ import annotations

import functools
import struct
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Encodes a message, without the length before it."""

COPIED_BYTES = 1 << 12
"""A message of so few bytes is copied out of what was received before it is decoded: a view takes longer to make."""
DEFAULT_LIMIT_BYTES = 1 << 30
"""The largest frame either side accepts, unless told otherwise: 1 GiB."""


class FrameError(Exception):
    """The bytes received are no frame of this conversation: garbage, or longer than allowed."""


def encode_frame(message: Any) -> bytearray:
    """Return `message` as one frame.

    Raises:
        FrameError: it is longer than four bytes can say.
    """
    frame = bytearray(4)
    _encoder.encode_into(message, frame, 4)
    size = len(frame) - 4
    if size > 0xFFFFFFFF:
        raise FrameError(f"a message of {size} bytes is longer than a frame can be")
    _LENGTH.pack_into(frame, 0, size)
    return frame


@functools.cache
def _decoder_of(type: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder for a message type; it holds no state, so all readers share it."""
    return msgspec.msgpack.Decoder(type)


class FrameReader(Generic[T]):
    """Turns a stream of bytes, cut anywhere, into the messages in it.

    Args:
        type: the message type, or union of types, of this conversation.
        limit_bytes: the largest frame accepted. May be raised later (after the handshake).

    Example:
        >>> reader = FrameReader(int)
        >>> frame = encode_frame(7)
        >>> reader.feed(frame[:3]), reader.feed(frame[3:])
        ([], [7])
    """

    def __init__(self, type: Any, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._decoder = _decoder_of(type)
        self._rest = bytearray()
        self._wanted = 0
        self.limit_bytes = limit_bytes

    def feed(self, data: bytes | bytearray | memoryview) -> list[T]:
        """Return the messages that `data` completes, in order.

        Raises:
            FrameError: a frame is longer than the limit, or is not a message of this conversation.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data, self._rest = self._rest, bytearray()
        messages: list[T] = []
        position, end = 0, len(data)
        view = memoryview(data)
        while end - position >= 4:
            size = _LENGTH.unpack_from(data, position)[0]
            if size > self.limit_bytes:
                raise FrameError(f"a frame of {size} bytes is over the limit of {self.limit_bytes} bytes")
            if end - position - 4 < size:
                self._wanted = 4 + size
                break
            try:
                # A small message is copied out, which takes less than to make a view of it.
                source = data if size <= COPIED_BYTES else view
                messages.append(self._decoder.decode(source[position + 4 : position + 4 + size]))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise FrameError(f"a frame is not a message of this conversation: {error}") from None
            position += 4 + size
        else:
            self._wanted = 4
        if position < end:
            self._rest = bytearray(view[position:])
        return messages

    @property
    def has_partial(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._rest)

    def take_rest(self) -> bytearray:
        """Return what there is of a frame that is not complete, and forget it: another reader goes on."""
        rest, self._rest = self._rest, bytearray()
        return rest
