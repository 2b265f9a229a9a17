"""The pipes of a process that runs many tasks: by one it claims them, by the other it says that they have returned.

Runs in: the server process.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack, suppress

from palpable._wire.messages import TaskReturned
from palpable._wire.returns import ReturnsReader


class KeptPipes:
    """Made with the first order of a process, and sent along with the first byte of it.

    If the process is gone its exit will be reported; the claims written all the same say that nothing was begun.

    Args:
        process_socket: leads to the process.
        first_byte: of what the process is to read.

    Raises:
        OSError: the system has no room for them now; nothing is left of them, and nothing was sent.

    Attributes:
        returns_fd: readable when the process has written to the returns pipe.
    """

    def __init__(self, process_socket: socket.socket, first_byte: bytes | bytearray) -> None:
        with ExitStack() as on_error, ExitStack() as at_end:
            claims_fd, claim_fd = os.pipe2(os.O_CLOEXEC)
            at_end.callback(os.close, claims_fd)
            on_error.callback(os.close, claim_fd)
            # The process blocks when it reads, the server must not. Whether a read blocks belongs to the open file
            # description, which a passed descriptor shares; opened anew, the same pipe has a second description.
            taking_fd = os.open(f"/proc/self/fd/{claims_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            on_error.callback(os.close, taking_fd)
            returns_fd, return_fd = os.pipe2(os.O_CLOEXEC)
            at_end.callback(os.close, return_fd)
            on_error.callback(os.close, returns_fd)
            os.set_blocking(returns_fd, False)
            self._returns_bytes = fcntl.fcntl(returns_fd, fcntl.F_GETPIPE_SZ)
            with suppress(ConnectionError):
                socket.send_fds(process_socket, [first_byte], [claims_fd, return_fd])
            on_error.pop_all()
        self._claim_fd, self._taking_fd, self.returns_fd = claim_fd, taking_fd, returns_fd
        self._reader = ReturnsReader()

    def offer(self, count: int, take_backs: int) -> None:
        """Let the process claim so many more tasks (see `RunTasks`)."""
        # At most `BATCH_MAX` claims are open at a time: the pipe, of 4 KB at least, never fills.
        os.write(self._claim_fd, bytes([take_backs]) * count)

    def take_back(self) -> int:
        """Return how many tasks the process has not claimed. It never will: what is read here it cannot read."""
        count = 0
        with suppress(BlockingIOError):
            while claims := os.read(self._taking_fd, 4096):
                count += len(claims)
        return count

    def read_returned(self) -> list[TaskReturned] | None:
        """Return what the process has said by the returns pipe; None if it will say nothing more.

        Raises:
            FrameError: it does not speak as it should.
        """
        try:
            data = os.read(self.returns_fd, self._returns_bytes)
        except BlockingIOError:
            return []
        return self._reader.feed(data) if data else None

    def close(self) -> None:
        for fd in (self._claim_fd, self._taking_fd, self.returns_fd):
            os.close(fd)
