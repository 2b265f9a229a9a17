"""What is to be sent, merged into few messages, in an order of steps that neither a Ctrl-C nor a signal handler harms.

Tasks submitted one by one are gathered in a batch and leave as one `SubmitTasks`; acknowledgements are merged into
the last one. Whoever flushes sends everything, also what other threads have added: nobody waits for a lock in order
to send.

As in `inbox`: how much of a frame is sent is recorded by the same call into C that sends it, so that whoever comes
after an interrupt goes on in the middle of the frame. Anything else would tear the stream.

A signal handler (or a `__del__`, by the garbage collector) may use the same connection, and wait, while the thread it
interrupts is in the middle of any of this. Locks do not help: it is the same thread. So:

* what is read before a call and changed after it is compared first, with no call in between, hence no interrupt;
* who comes in between may do all that was begun; then it is done twice, which does no harm: tasks have ids;
* but a byte is never sent twice: see `_Frame`.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any, Literal

from palpable._connection.pending import Pending
from palpable._connection.shared_taker import SharedTaker
from palpable._connection.waiting import Request, ResultTaker
from palpable._wire.framing import encode_frame
from palpable._wire.messages import Message, ResultsReceived, SubmitTasks, TaskOptions, TaskRequest, WatchResults

BATCH_MAX_TASKS = 500
BATCH_MAX_BYTES = 1 << 18
"""A batch is closed when it holds as much: enough that the cost of a message no longer counts, and little enough that
the server can start on the first while the next is gathered."""
SMALL_FUNCTION_BYTES = 1 << 16
FRAME_OVERHEAD_BYTES = 1 << 10
"""What a frame takes besides the payloads in it, at most, when it holds a single task."""
ACKNOWLEDGE_AFTER = 16
"""Small results that may lie unacknowledged while calls follow each other; each lies at the server meanwhile. To take
in an acknowledgement costs the server as much as to take in a task."""
SMALL_RESULT_BYTES = 1 << 12
WATCHED_AT_ONCE = 5000
"""Ids in one `WatchResults`: some hundred kilobytes, which every server accepts."""
NESTED_LOOK_SECONDS = 0.0005
"""Between two looks whether another thread is done with sending."""
DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)
"""Not on Windows: there a send waits until everything is taken."""

Delivery = Literal["push", "none"]


class Batch:
    """Tasks that will travel in one `SubmitTasks`.

    Its request id is given out when it is begun, not when it is sent. So it is lower than that of a question about one
    of its tasks, and what goes over another socket in the order of the ids goes in the order of the calls.
    """

    __slots__ = ("delivery", "functions", "needs_exit", "options", "request_id", "size_bytes", "tasks")

    def __init__(self, request_id: int, options: TaskOptions, delivery: Delivery, needs_exit: bool) -> None:
        self.request_id = request_id
        self.options = options
        self.delivery = delivery
        self.needs_exit = needs_exit
        self.tasks: list[TaskRequest] = []
        self.functions: dict[str, bytes] = {}
        """All that these tasks use, whether they travel along or are known to the server."""
        self.size_bytes = 0


class _Frame:
    """A frame, and how much of it is sent.

    To send, one needs the ticket: an iterator over what is to be sent, which can be used up only once, by `map` in the
    call that sends. Whoever begins to send takes the ticket of who began before, and was interrupted, away. If that one
    goes on, it sends nothing, and looks anew.
    """

    __slots__ = ("counts", "data", "ticket")

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.counts: list[int] = []
        """The bytes that each send has taken."""
        self.ticket: Iterator[memoryview] = iter(())

    def is_sent(self) -> bool:
        return sum(self.counts) >= len(self.data)

    def send(self, send: Callable[[Any, int], int]) -> None:
        """Send what is left, or as much as the socket takes. Raises what `send` raises; nothing was sent then."""
        rests: list[memoryview] = []
        before, ticket = self.ticket, iter(rests)
        self.ticket = ticket  # first: whoever comes from here on takes it away
        deque(before, maxlen=0)
        done = sum(self.counts)
        if done < len(self.data):
            with memoryview(self.data) as view, view[done:] as rest:
                rests.append(rest)
                # One call into C: what send took is recorded before an interrupt can be seen.
                self.counts.extend(map(send, ticket, (DONT_WAIT,)))
                rests.clear()


class Outbox:
    """Everything on its way out over one socket. Safe to use from every thread.

    When the socket breaks, and there is another, an outbox hands over to that one's. From then on it passes on what is
    added to it, by threads that do not know yet.

    Args:
        pending: what is expected. Who expects something enters it here, under the same lock as the question or the
            task, so that no hand-over can come between the two.
    """

    def __init__(self, pending: Pending | None = None) -> None:
        # Reentrant: the garbage collector may run somebody's `__del__` here, and that may submit a task.
        self._lock = threading.RLock()
        self._pending = pending or Pending()
        self._request_ids = self._pending.request_ids
        self._takers = self._pending.takers
        self._successor: Outbox | None = None
        self._batch: Batch | None = None
        self._closing: Batch | None = None
        """Nothing is added to it any more, and it is not in `_frames` yet: it may be an interrupt that came between."""
        self._frames: deque[_Frame] = deque()
        self._changes = 0
        """How often something was added to the frames, or taken from them."""
        self._writer: tuple[int] | None = None
        self.unanswered: dict[int, Batch] = {}
        """Submissions the server has not accepted yet, by request id."""
        self._known_functions: set[str] = set()
        self._received = 0
        self._acknowledged = 0
        self._can_wait = True
        """Whether what is not acknowledged is small, so that it may wait for more to come."""

    # --- adding ---------------------------------------------------------------------------------------------------

    def new_request_id(self) -> int:
        """Return an id that no other request of this connection has."""
        return next(self._request_ids)

    def add(self, message: Message) -> None:
        """Queue `message`, after everything that was added before."""
        frame = encode_frame(message)
        with self._lock:
            if self._successor is not None:
                self._successor.add(message)
                return
            self._close_batch()
            self._queue(frame)

    def ask(self, request: Request, message: Message) -> None:
        """Queue the question `message`, and expect its answer."""
        request.message, request.asked_at = message, monotonic()
        frame = encode_frame(message)
        with self._lock:
            if self._successor is not None:
                self._successor.ask(request, message)
                return
            request.way = self
            self._pending.requests[request.request_id] = request
            self._close_batch()
            self._queue(frame)

    def add_task(
        self,
        request: TaskRequest,
        function: bytes,
        options: TaskOptions,
        delivery: Delivery = "push",
        needs_exit: bool = False,
        taker: ResultTaker | None = None,
    ) -> bool:
        """Queue a task, together with others that have the same options; return whether the batch is full.

        Args:
            taker: gets the result.
        """
        with self._lock:
            if self._successor is not None:
                return self._successor.add_task(request, function, options, delivery, needs_exit, taker)
            if taker is not None:
                # Before the task can be sent: the result might be here first.
                self._takers[request.task_id] = taker
            while True:
                batch = self._batch
                if batch is None:
                    begun = Batch(next(self._request_ids), options, delivery, needs_exit)
                    if self._batch is None:
                        self._batch = begun
                    continue
                if batch.options is not options or batch.delivery is not delivery or batch.needs_exit is not needs_exit:
                    self._close_batch(ACKNOWLEDGE_AFTER)
                    continue
                key = request.function_key
                if key and key not in batch.functions:
                    batch.functions[key] = function
                    if key not in self._known_functions:
                        batch.size_bytes += len(function)
                batch.tasks.append(request)
                batch.size_bytes += len(request.payload) + 64
                if self._batch is batch:
                    break
                # A signal handler has closed it, perhaps before ours was in.
            if len(batch.tasks) >= BATCH_MAX_TASKS or batch.size_bytes >= BATCH_MAX_BYTES:
                self._close_batch(ACKNOWLEDGE_AFTER)
                return True
            return False

    def acknowledge(self, sequence: int, *, is_small: bool = False) -> None:
        """The results up to push number `sequence` are here. Told to the server with the next flush.

        Args:
            is_small: it is one result, of few bytes. Tasks may be sent without a word of such, as long as they are few.
        """
        self._received = max(self._received, sequence)
        if not is_small:
            self._can_wait = False

    @property
    def has_unsent(self) -> bool:
        """Whether a flush would send anything."""
        return self.has_tasks or self._received > self._acknowledged

    @property
    def has_tasks(self) -> bool:
        """Whether there is more to send than acknowledgements."""
        return bool(self._frames) or self._batch is not None or self._closing is not None

    @property
    def is_writing(self) -> bool:
        """Whether a thread is in the middle of a flush."""
        return self._writer is not None

    @property
    def is_written_elsewhere(self) -> bool:
        """Whether another thread is in the middle of a flush."""
        writer = self._writer
        return writer is not None and writer[0] != threading.get_ident()

    def _owes(self, count: int) -> bool:
        """Whether at least `count` pushes are to be acknowledged, or fewer that can't wait."""
        missing = self._received - self._acknowledged
        return missing > 0 and (missing >= count or not self._can_wait)

    def _close_batch(self, acknowledge_from: int = 1) -> None:
        """Turn what is gathered into frames. The caller holds the lock.

        Args:
            acknowledge_from: fewer results than this are acknowledged another time, if they can wait.
        """
        received = self._received
        if self._owes(acknowledge_from):
            # Before everything added later: a question must not find a result that was taken already. First it is
            # queued, then forgotten: after an interrupt between the two it is sent twice.
            self._queue(encode_frame(ResultsReceived(sequence=received)))
            if self._acknowledged < received:
                self._acknowledged, self._can_wait = received, True
        self._queue_closing()  # of one that was interrupted
        if self._closing is None:
            self._closing, self._batch = self._batch, None
        self._queue_closing()

    def _queue_closing(self) -> None:
        batch = self._closing
        if batch is not None:
            # First queued, then forgotten, as above.
            self._queue(self._encode(batch))
            self._know_large(batch)
            if self._closing is batch:
                self._closing = None

    def _queue(self, data: bytearray) -> None:
        self._frames.append(_Frame(data))
        self._changes += 1

    def _know_large(self, batch: Batch) -> None:
        """Every batch carries the function until the server has accepted one that did: a refused one would otherwise
        leave it unknown there, and fail those behind. Not so large ones; they are sent once."""
        for key, data in batch.functions.items():
            if len(data) > SMALL_FUNCTION_BYTES:
                self._known_functions.add(key)

    def _encode(self, batch: Batch) -> bytearray:
        functions = {key: data for key, data in batch.functions.items() if key not in self._known_functions}
        self.unanswered[batch.request_id] = batch
        return encode_frame(
            SubmitTasks(
                request_id=batch.request_id,
                tasks=batch.tasks,
                functions=functions,
                options=batch.options,
                delivery=batch.delivery,
                needs_exit=batch.needs_exit,
            )
        )

    # --- what became of it ----------------------------------------------------------------------------------------

    def accepted(self, request_id: int) -> None:
        """The server has these tasks, and their functions."""
        batch = self.unanswered.get(request_id)
        if batch is not None:
            self._known_functions.update(batch.functions)
            if batch.options.idempotency_key:
                for task in batch.tasks:
                    taker = self._takers.get(task.task_id)
                    if isinstance(taker, SharedTaker):
                        taker.is_accepted = True
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

    # --- the next socket ------------------------------------------------------------------------------------------

    @property
    def expects_something(self) -> bool:
        """Whether a result, an answer, or the acceptance of a task is still to come, or a task still to be sent."""
        return bool(self._takers or self._pending.requests or self.expects_acceptance)

    @property
    def expects_acceptance(self) -> bool:
        """Whether there are tasks that the server has not accepted yet."""
        return bool(self.unanswered or self._batch is not None or self._closing is not None)

    def hand_over(self, successor: Outbox, now: float) -> None:
        """Have everything that is expected come over another socket: submit again, watch, ask again, in the old order.

        `successor` is new. Not safe against interrupts, so not for the main thread.
        """
        with self._lock, successor._lock:
            unanswered, requests = dict(self.unanswered), self._pending.requests
            for unsent in (self._closing, self._batch):
                if unsent is not None:
                    unanswered[unsent.request_id] = unsent
            for batch in unanswered.values():
                if batch.delivery == "push":
                    # Nobody wants the others any more; they may have been refused at the last moment.
                    batch.tasks = [task for task in batch.tasks if task.task_id in self._takers]
            submitted = {task.task_id for batch in unanswered.values() for task in batch.tasks}
            accepted = [
                task_id
                for task_id, taker in list(self._takers.items())
                if task_id not in submitted and not (isinstance(taker, SharedTaker) and not taker.is_accepted)
            ]
            for start in range(0, len(accepted), WATCHED_AT_ONCE):
                task_ids = accepted[start : start + WATCHED_AT_ONCE]
                successor._queue(encode_frame(WatchResults(request_id=next(self._request_ids), task_ids=task_ids)))
            # By the time they were first sent: a question may be about a task that was submitted before it.
            for request_id in sorted([*unanswered, *requests]):
                request = requests.get(request_id)
                if request_id in unanswered:
                    if unanswered[request_id].tasks:
                        successor._queue(successor._encode(unanswered[request_id]))
                        successor._know_large(unanswered[request_id])
                elif request is not None and not request.is_done():
                    successor._queue(encode_frame(request.ask_again(now, successor)))
            self._successor = successor

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
        # To acknowledge is what this is for when there is nothing else to send.
        acknowledge_from = ACKNOWLEDGE_AFTER if self.has_tasks else 1
        while self.has_tasks or self._owes(acknowledge_from):
            if self._lock._is_owned():  # type: ignore[attr-defined]  # as `threading.Condition` asks, of any lock
                self._wait_for_other_writer(me)
            try:
                with self._lock:
                    writer = self._writer
                    if writer is None:
                        self._writer = me
                    elif writer != me:
                        # That thread looks once more after it has let go, and what we added was there before.
                        return True
                    self._close_batch(acknowledge_from)
                    if writer is None:  # else this thread is in the middle of the same, further up its stack
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

    def _wait_for_other_writer(self, me: tuple[int]) -> None:
        """Return when no other thread is in the middle of a flush.

        For a thread that holds the lock further up its stack. Without it that other thread can't look once more, so it
        will not send what we add.
        """
        while (writer := self._writer) is not None and writer != me:
            sleep(NESTED_LOOK_SECONDS)

    def _send_first(self, send: Callable[[Any, int], int]) -> None:
        try:
            frame = self._frames[0]
        except IndexError:  # a signal handler has sent it
            return
        if not frame.is_sent():
            frame.send(send)
        if frame.is_sent():
            try:
                self._frames.remove(frame)
            except ValueError:  # as above
                return
            self._changes += 1

    def _join_small(self) -> None:
        """Put several small frames into one, for one system call. The caller holds the lock, and is the writer.

        A signal handler that comes meanwhile may add frames, send them and take them away, or send a part of the first.
        """
        changes = self._changes
        frames = self._frames.copy()
        if len(frames) < 2:
            return
        data = [frame.data for frame in frames]
        if sum(map(len, data)) > BATCH_MAX_BYTES:
            return
        first, joined = frames[0], deque([_Frame(bytearray().join(data))])
        # No call between the comparison and the change, hence no interrupt.
        if self._changes == changes and not first.counts:
            self._frames = joined
