"""The server's end of the line to one task process.

Runs in: the server process. Speaks with: one task process, over the private socket pair of that process, and with one
that runs many tasks over its pipes too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.messages import FromTaskProcess, RunTasks, TaskOrder
from palpable.servants.intake import Intake
from palpable.servants.kept_pipes import KeptPipes

if TYPE_CHECKING:
    from palpable._zygote.zygote_handle import ZygoteHandle

logger = logging.getLogger("palpable.server")

SMALL_RECEIVE_BYTES, LARGE_RECEIVE_BYTES = 1 << 16, 1 << 18
"""Read from a socket at once; the larger after a read that was full. For that the C library maps memory anew at every
read, and unmaps it: too dear for a small message."""
UNSENT_HIGH_BYTES, UNSENT_LOW_BYTES = 1 << 16, 1 << 14
"""With more answers waiting than the first no results are pushed, until there are fewer than the second."""


class ProcessLink:
    """Sends tasks to a runner's process and reads what it says; buffers both ways, never blocks.

    A link is made when the engine starts a runner, and bound to a process when one is there. Until then it keeps the
    tasks it was to send.

    Args:
        runner_id: whose link it is; also its `connection_id` for requests of the task (negative: never a client's).
        on_messages: called with the link and the messages that came, in order. It takes those out that it handles; a
            request only while the link is not congested. What came by the returns pipe together is a list of its own.
        on_has_read: called with the link when it is writable again.
        task_token: what its tasks are to prove themselves by.
    """

    def __init__(
        self,
        runner_id: int,
        isolation: str,
        limit_bytes: int,
        on_messages: Callable[[ProcessLink, deque[Any]], None],
        loop: asyncio.AbstractEventLoop,
        on_has_read: Callable[[ProcessLink], None] = lambda link: None,
        *,
        task_token: str = "",
    ) -> None:
        self.runner_id = runner_id
        self.connection_id = -runner_id
        self.isolation = isolation
        self.inside_task = ""
        self.pid: int | None = None
        self.spool_path = ""
        self.collected_bytes = 0
        """How much of the spool file was collected already."""
        self.zygote: ZygoteHandle | None = None
        self.known_functions: set[str] = set()
        self.is_writable = True
        """Whether results may be pushed to it."""
        self.has_exited = False
        """Whether its process is gone, and only what that has said is left to handle."""
        self._on_messages = on_messages
        self._on_has_read = on_has_read
        self._loop = loop
        self._task_token = task_token
        self._intake = Intake(self._hand_over, self._unread_bytes, self._set_reading)
        self._socket: socket.socket | None = None
        self._reader: FrameReader[Any] = FrameReader(FromTaskProcess, limit_bytes=limit_bytes)
        self._unbound: list[tuple[list[TaskOrder], dict[str, bytes], int]] = []
        self._outgoing = bytearray()
        self._unsent_order_bytes = 0
        """What is in there of orders, at most: a busy process reads those later, and may ask meanwhile."""
        self._pipes: KeptPipes | None = None
        self._reads_returns = False
        """Whether the process may still say something by its returns pipe, as far as is known."""
        self._heard = 0
        """Frames received."""
        self._take_backs = 0
        """Frames sent that told of tasks taken back, modulo 256: what the claim bytes say (see `RunTasks`)."""
        self._never_sent = 0
        """Tasks taken back before there was a process to know of them."""
        self._lost_orders = 0
        """Tasks that the process can't be told of any more, as there are no pipes for it: it is being ended."""
        self._is_given_up = False
        self._receive_bytes = SMALL_RECEIVE_BYTES
        self._is_reading = False
        self._is_at_end = False
        self._is_draining = False
        self._is_reset = False
        self._has_conversed = False

    @property
    def is_bound(self) -> bool:
        return self.pid is not None

    def bind(self, pid: int, process_socket: socket.socket, spool_path: str, zygote: ZygoteHandle) -> None:
        """A process is there: send it what waits."""
        self.pid, self._socket, self.spool_path, self.zygote = pid, process_socket, spool_path, zygote
        self._set_reading(True)
        unbound, self._unbound = self._unbound, []
        for tasks, functions, taken_back in unbound:
            self._send_run(tasks, functions, taken_back)

    def send_tasks(self, tasks: list[TaskOrder], functions: dict[str, bytes], taken_back: int) -> None:
        """Hand over tasks, to be run in this order."""
        if self._socket is None and not self.is_bound:
            self._unbound.append((tasks, functions, taken_back))
        else:
            self._send_run(tasks, functions, taken_back)

    def _send_run(self, tasks: list[TaskOrder], functions: dict[str, bytes], taken_back: int) -> None:
        if self._socket is None:
            return
        taken_back, self._never_sent = taken_back - self._never_sent, 0
        frame = encode_frame(
            RunTasks(
                tasks=tasks,
                functions=functions,
                isolation=self.isolation,  # type: ignore[arg-type]
                taken_back=taken_back,
                heard=self._heard,
                token=self._task_token,
            )
        )
        if self.isolation == "task":
            self._send_order(frame)
            return
        if self._pipes is None and not self._is_given_up:
            try:
                self._open_pipes(frame)
            except OSError as error:
                logger.error("process %s is ended: there is no room for its pipes: %s", self.pid, error)
                self._is_given_up = True
                self._end_process()
        if self._is_given_up:
            self._lost_orders += len(tasks)
            return
        if taken_back:
            self._take_backs = (self._take_backs + 1) % 256
        self._send_order(frame)
        assert self._pipes is not None
        self._pipes.offer(len(tasks), self._take_backs)

    def _open_pipes(self, frame: bytearray) -> None:
        assert self._socket is not None
        pipes = KeptPipes(self._socket, frame[:1])
        try:
            self._loop.add_reader(pipes.returns_fd, self._on_returned)
        except OSError:
            pipes.close()
            raise
        del frame[:1]
        self._pipes, self._reads_returns = pipes, True

    def take_back(self) -> int:
        """Return how many tasks sent last the process has not begun, and never will: they are the server's again."""
        if not self.is_bound:
            count = sum(len(tasks) for tasks, _, _ in self._unbound)
            self._unbound.clear()
            self.known_functions.clear()  # they were to travel with those orders
            self._never_sent += count
            return count
        if self._pipes is None:
            # A process of one task has what it was handed; one that was given up has nothing.
            count, self._lost_orders = self._lost_orders, 0
            return count
        return self._pipes.take_back()

    @property
    def was_never_read(self) -> bool:
        """Whether the process is known to have ended without reading its first order: nothing was begun.

        The kernel says so: a Unix socket is reset, not just closed, when its other end closes with bytes unread. Once
        there were answers to the task's requests, these may be the unread ones.
        """
        return self._is_reset and not self._has_conversed

    def send(self, message: Any) -> None:
        """Answer a request of the task, or push it results."""
        self._has_conversed = True
        if not self.has_exited:
            self._send(encode_frame(message))
            if self._unread_bytes() > UNSENT_HIGH_BYTES:
                self.is_writable = False

    def _send_order(self, frame: bytearray) -> None:
        before = len(self._outgoing)
        self._send(frame)
        self._unsent_order_bytes += len(self._outgoing) - before

    def _unread_bytes(self) -> int:
        return len(self._outgoing) - self._unsent_order_bytes

    def owe(self, count: int) -> None:
        """The task is owed an answer of so many bytes, which waits for the disk; negative: it has got it."""
        self._intake.owe(count)

    def _send(self, frame: bytes | bytearray) -> None:
        if self._socket is None:
            return
        if not self._outgoing:
            try:
                sent = self._socket.send(frame)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:  # it is gone; its exit will be reported
                self._is_reset = True
                return
            if sent == len(frame):
                return
            frame = memoryview(frame)[sent:]  # type: ignore[assignment]
            self._loop.add_writer(self._socket.fileno(), self._on_writable)
        self._outgoing += frame

    def _on_writable(self) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._outgoing)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._outgoing)
        del self._outgoing[:sent]
        if not self._outgoing:
            self._unsent_order_bytes = 0
            self._loop.remove_writer(self._socket.fileno())
        if not self.is_writable and self._unread_bytes() <= UNSENT_LOW_BYTES:
            self.is_writable = True
            self._on_has_read(self)
            self._intake.go_on()

    def _on_readable(self) -> None:
        self._receive()

    def must_wait(self, request: Any) -> bool:
        """Whether this request has to wait, until the task has read the answers to those before."""
        return not self._is_draining and self._intake.must_wait(request)

    @property
    def has_unheard(self) -> bool:
        """Whether something it has said is not handled yet."""
        return bool(self._intake.messages)

    def go_on(self) -> None:
        """Handle what had to wait."""
        self._intake.go_on()

    def drain(self) -> None:
        """Handle everything that the process has sent until now, however much it has not read."""
        was_draining, self._is_draining = self._is_draining, True
        try:
            while True:
                is_more = self._receive()
                self._hand_over(self._intake.messages)  # also if this is called while one of them is handled
                if not is_more:
                    break
        finally:
            self._is_draining = was_draining
        self._intake.go_on()

    def _hand_over(self, messages: deque[Any]) -> None:
        if messages:
            self._on_messages(self, messages)

    def _receive(self) -> bool:
        """Take in what the process has said; return whether there may be more."""
        if self._socket is None:
            return False
        data: bytes | None = b""
        try:
            data = self._socket.recv(self._receive_bytes)
        except (BlockingIOError, InterruptedError):
            data = None
        except ConnectionResetError:
            self._is_reset = True
        # After that, and handled before: see `returns`. Nothing is handled until all of it is queued: to handle may be
        # to read on.
        heard = self._read_returned()
        if data is None:
            self._intake.take(heard)
            return False
        is_full = len(data) == self._receive_bytes
        self._receive_bytes = LARGE_RECEIVE_BYTES if is_full else SMALL_RECEIVE_BYTES
        if not data:
            self._stop_reading()  # whether and how it ended, its wait status tells
            self._intake.take(heard)
            return False
        try:
            messages = self._reader.feed(data)
        except FrameError as error:
            self._refuse_to_hear(error)
            self._intake.take(heard)
            return False
        self._has_conversed = True
        self._heard += len(messages)
        heard += messages
        if heard:
            self._intake.take(heard)
        return True

    def _on_returned(self) -> None:
        self._intake.take(self._read_returned())

    def _read_returned(self) -> list[Any]:
        """Return what the process has said by the returns pipe, as one message, if there is anything."""
        if self._pipes is None or not self._reads_returns:
            return []
        try:
            returned = self._pipes.read_returned()
        except FrameError as error:
            self._refuse_to_hear(error)
            return []
        if returned is None:
            self._stop_reading_returns()
        if not returned:
            return []
        self._has_conversed = True
        return [returned]

    def _refuse_to_hear(self, error: FrameError) -> None:
        logger.warning("process %s is ended, as it does not speak as a task process does: %s", self.pid, error)
        self._stop_reading()
        self._stop_reading_returns()
        self._end_process()

    def _end_process(self) -> None:
        """Have the process killed; its exit will be reported."""
        if self.zygote is not None and self.pid is not None:
            self.zygote.end_process(self.pid, 0.0)

    def _set_reading(self, is_on: bool) -> None:
        if self._socket is None or self._is_at_end or is_on is self._is_reading:
            return
        self._is_reading = is_on
        if is_on:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        else:
            self._loop.remove_reader(self._socket.fileno())

    def _stop_reading(self) -> None:
        self._set_reading(False)
        self._is_at_end = True

    def _stop_reading_returns(self) -> None:
        if self._reads_returns and self._pipes is not None:
            self._reads_returns = False
            self._loop.remove_reader(self._pipes.returns_fd)

    def close(self) -> None:
        """The process is gone."""
        if self._socket is not None:
            self._stop_reading()
            if self._outgoing:
                self._loop.remove_writer(self._socket.fileno())
                self._outgoing.clear()
                self._unsent_order_bytes = 0
            self._socket.close()
            self._socket = None
        if self._pipes is not None:
            self._stop_reading_returns()
            self._pipes.close()
            self._pipes = None
