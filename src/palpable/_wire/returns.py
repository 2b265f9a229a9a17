"""The returns pipe: what a process that runs many tasks says of those that have returned.

Nearly all that such a process says is that a small task has returned. On its socket each of these is a frame: a packet
of the kernel's, a length, the names of the fields, and on the other side a turn of a loop. What is written to a pipe
the kernel puts one behind the other. So the server reads at once what there is, and decodes it at once, as one array.

Records: a write of at most PIPE_BUF bytes is never mixed with another (POSIX, `write`), and Linux shows it to readers
as a whole (`pipe_write` holds the lock of the pipe, and puts such a write into one page). So a read with room for all
that a pipe can hold has whole records. How many these are, their numbers say: each ends with its own, which is always
five bytes long.

Order: what a process says comes by two ways, and the server has to hear it in the order in which it was said.

* From the pipe to the socket: whatever was in the pipe when the server received from the socket was said before.
  Therefore it receives first, and then reads the pipe.
* From the socket to the pipe: only when the server has heard all that was said by the socket. Each `RunTasks` says how
  many frames it has heard (`heard`). A process that has opened a connection for a task stays with the socket.
"""

from __future__ import annotations

from select import PIPE_BUF

import msgspec

from palpable._wire.framing import FrameError
from palpable._wire.messages import TaskReturned

RECORD_MAX_BYTES = PIPE_BUF
_RECORD_MIN_BYTES = 1 + 1 + 2 + 2 * 9 + 3 * 1 + 5
"""The array, an empty id, an empty payload, two floats, three small integers, the number."""
_FIRST_NUMBER, _NUMBERS = 1 << 16, 1 << 31
"""Encoded in five bytes: the smaller ones take fewer. After so many they begin anew."""


def number_of(count: int) -> int:
    """Return the number of the record before which there were `count` in the same pipe."""
    return _FIRST_NUMBER + count % _NUMBERS


class ReturnsReader:
    """Turns what was read from a returns pipe into the records in it.

    Example:
        >>> from palpable._wire.framing import encode
        >>> record = TaskReturned("t1", b"", 0.1, 0.1, 0, 0, 0, number_of(0))
        >>> [returned.task_id for returned in ReturnsReader().feed(encode(record))]
        ['t1']
    """

    _decoder = msgspec.msgpack.Decoder(list[TaskReturned])

    def __init__(self) -> None:
        self._count = 0

    def feed(self, data: bytes) -> list[TaskReturned]:
        """Return the records; there is at least one.

        Raises:
            FrameError: these are no records, or not those that come next.
        """
        last = int.from_bytes(data[-4:], "big") - _FIRST_NUMBER
        count = (last + 1 - self._count) % _NUMBERS
        if not 0 < count * _RECORD_MIN_BYTES <= len(data):
            raise FrameError("what was read from a returns pipe is not what comes next")
        try:
            returned = self._decoder.decode(b"\xdd" + count.to_bytes(4, "big") + data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"what was read from a returns pipe is no record: {error}") from None
        self._count = (self._count + count) % _NUMBERS
        return returned
