"""What is to be sent, merged into few messages, in an order of steps that a Ctrl-C does not harm.

Tasks submitted one by one are gathered in a batch and leave as one `SubmitTasks`; acknowledgements are merged into
the last one. Whoever flushes sends everything, also what other threads have added: nobody waits for a lock in order
to send.

As in `inbox`: how much of a frame is sent is recorded by the same call into C that sends it, so that whoever comes
after an interrupt goes on in the middle of the frame. Anything else would tear the stream.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Literal

from palpable._wire.framing import encode_frame
from palpable._wire.messages import Message, ResultsReceived, SubmitTasks, TaskOptions, TaskRequest

BATCH_MAX_TASKS = 500
BATCH_MAX_BYTES = 1 << 18
"""A batch is closed when it holds as much: enough that the cost of a message no longer counts, and little enough that
the server can start on the first while the next is gathered."""
SMALL_FUNCTION_BYTES = 1 << 16
DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)
"""Not on Windows: there a send waits until everything is taken."""

Delivery = Literal["push", "none"]


class Batch:
    """Tasks that will travel in one `SubmitTasks`."""

    __slots__ = ("delivery", "functions", "needs_exit", "options", "size_bytes", "tasks")

    def __init__(self, options: TaskOptions, delivery: Delivery, needs_exit: bool) -> None:
        self.options = options
        self.delivery = delivery
        self.needs_exit = needs_exit
        self.tasks: list[TaskRequest] = []
        self.functions: dict[str, bytes] = {}
        self.size_bytes = 0


class Outbox:
    """Everything on its way out of one connection. Safe to use from every thread."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run somebody's `__del__` here, and that may submit a task.
        self._lock = threading.RLock()
        self._request_ids = count(1)
        self._batch: Batch | None = None
        self._frames: deque[bytearray] = deque()
        self._current: tuple[bytearray, list[int]] | None = None
        self._writer: tuple[int] | None = None
        self.unanswered: dict[int, Batch] = {}
        """Submissions the server has not accepted yet, by request id."""
        self._known_functions: set[str] = set()
        self._received = 0
        self._acknowledged = 0

    # --- adding ---------------------------------------------------------------------------------------------------

    def new_request_id(self) -> int:
        """Return an id that no other request of this connection has."""
        return next(self._request_ids)

    def add(self, message: Message) -> None:
        """Queue `message`, after everything that was added before."""
        frame = encode_frame(message)
        with self._lock:
            self._close_batch()
            self._frames.append(frame)

    def add_task(
        self,
        request: TaskRequest,
        function: bytes,
        options: TaskOptions,
        delivery: Delivery = "push",
        needs_exit: bool = False,
    ) -> bool:
        """Queue a task, together with others that have the same options; return whether the batch is full."""
        with self._lock:
            batch = self._batch
            if (
                batch is None
                or batch.options is not options
                or batch.delivery is not delivery
                or batch.needs_exit is not needs_exit
            ):
                self._close_batch()
                batch = self._batch = Batch(options, delivery, needs_exit)
            key = request.function_key
            if key and key not in self._known_functions and key not in batch.functions:
                # Every batch carries the function until the server has accepted one that did: a refused one would
                # otherwise leave it unknown there, and fail those behind. Not so large ones; they are sent once.
                batch.functions[key] = function
                batch.size_bytes += len(function)
                if len(function) > SMALL_FUNCTION_BYTES:
                    self._known_functions.add(key)
            batch.tasks.append(request)
            batch.size_bytes += len(request.payload) + 64
            if len(batch.tasks) >= BATCH_MAX_TASKS or batch.size_bytes >= BATCH_MAX_BYTES:
                self._close_batch()
                return True
            return False

    def acknowledge(self, sequence: int) -> None:
        """The results up to push number `sequence` are here. Told to the server with the next flush."""
        self._received = max(self._received, sequence)

    @property
    def has_unsent(self) -> bool:
        """Whether a flush would send anything."""
        return bool(self._frames) or self._batch is not None or self._received > self._acknowledged

    @property
    def has_tasks(self) -> bool:
        """Whether there is more to send than acknowledgements."""
        return bool(self._frames) or self._batch is not None

    @property
    def is_writing(self) -> bool:
        """Whether a thread is in the middle of a flush."""
        return self._writer is not None

    @property
    def is_written_elsewhere(self) -> bool:
        """Whether another thread is in the middle of a flush."""
        writer = self._writer
        return writer is not None and writer[0] != threading.get_ident()

    def _close_batch(self) -> None:
        """Turn what is gathered into frames. The caller holds the lock."""
        received, batch = self._received, self._batch
        frames: list[bytearray] = []
        if received > self._acknowledged:
            # Before everything added later: a question must not find a result that was taken already.
            frames.append(encode_frame(ResultsReceived(sequence=received)))
        if batch is not None:
            request_id = next(self._request_ids)
            self.unanswered[request_id] = batch
            frames.append(
                encode_frame(
                    SubmitTasks(
                        request_id=request_id,
                        tasks=batch.tasks,
                        functions=batch.functions,
                        options=batch.options,
                        delivery=batch.delivery,
                        needs_exit=batch.needs_exit,
                    )
                )
            )
        if frames:
            # First queued, then forgotten: after an interrupt between the two it is sent twice, which is allowed, since
            # tasks have ids. The other order would lose it.
            self._frames.extend(frames)
            self._acknowledged, self._batch = received, None

    # --- what became of it ----------------------------------------------------------------------------------------

    def accepted(self, request_id: int) -> None:
        """The server has these tasks, and their functions."""
        batch = self.unanswered.get(request_id)
        if batch is not None:
            self._known_functions.update(batch.functions)
            self.unanswered.pop(request_id, None)

    def forget(self, request_id: int) -> None:
        """Nothing more will be heard of that submission."""
        self.unanswered.pop(request_id, None)

    def refused(self, request_id: int) -> Batch | None:
        """Nothing of that submission was done; return it, if the request was one."""
        batch = self.unanswered.get(request_id)
        if batch is not None:
            self._known_functions.difference_update(batch.functions)
        return batch

    # --- sending --------------------------------------------------------------------------------------------------

    def flush(self, send: Callable[[Any, int], int], wait_writable: Callable[[], None] | None) -> bool:
        """Send everything; return False if something is left because the socket takes no more.

        Args:
            send: `socket.send`.
            wait_writable: called when the socket takes no more; None: return False then.

        Raises:
            OSError: the connection is broken.
        """
        me = (threading.get_ident(),)
        while self.has_unsent:
            try:
                with self._lock:
                    if self._writer is not None:
                        # That thread looks once more after it has let go, and what we added was there before.
                        return True
                    self._writer = me
                    self._close_batch()
                    self._join_small()
                while self._frames:
                    try:
                        self._send_first(send)
                    except BlockingIOError:
                        if wait_writable is None:
                            return False
                        wait_writable()
            finally:
                # No call between the comparison and the change, hence no interrupt.
                if self._writer is me:
                    self._writer = None
        return True

    def _send_first(self, send: Callable[[Any, int], int]) -> None:
        frames = self._frames
        frame = frames[0]
        current = self._current
        if current is None or current[0] is not frame:
            current = self._current = (frame, [])
        counts = current[1]
        done = sum(counts)
        if done < len(frame):
            with memoryview(frame) as view, view[done:] as rest:
                # One call into C: what send took is recorded before an interrupt can be seen.
                counts.extend(map(send, (rest,), (DONT_WAIT,)))
            done += counts[-1]
        if done >= len(frame):
            frames.popleft()

    def _join_small(self) -> None:
        """Put several small frames into one, for one system call. The caller holds the lock."""
        frames = self._frames
        if len(frames) < 2 or sum(map(len, frames)) > BATCH_MAX_BYTES:
            return
        if self._current is not None and self._current[0] is frames[0]:
            return  # part of it is sent
        self._frames = deque([bytearray().join(frames)])
