"""What a client has with a server: many requests, all threads of a process, over one socket after another.

Sending: by the caller itself, or together with what others send (`sender`, `outbox`).

Reading: by one of the threads that wait (`leadership`), or by the background thread. Nobody polls.

Ends: the first error breaks the socket for good (`link`). If something is expected from the server, another thread
connects again (`reconnecting`), while those that wait sleep on. The new link takes over all that is expected, by the
outbox of the old one: what was not accepted is submitted again, with the same ids; results are watched for; questions
are asked again. If that can't be, or nothing is expected, the connection is broken: everything that is pending fails
with ServerUnreachable, and the owner opens a new one at its next call. A fork breaks it in the child.

A message that the old link received and has still to deliver is delivered; it is as true as before. But it changes
nothing in what the new link has to send.
"""

from __future__ import annotations

import atexit
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from palpable._connection import forking
from palpable._connection.background import Background
from palpable._connection.broken import broken
from palpable._connection.inside import current_task_id
from palpable._connection.leadership import Leadership, Role
from palpable._connection.link import Link
from palpable._connection.outbox import FRAME_OVERHEAD_BYTES, Delivery, Outbox
from palpable._connection.pending import Pending
from palpable._connection.refusals import too_large
from palpable._connection.waiting import Blocked, LogRequest, Request, ResultTaker, Watched
from palpable._wire.framing import DEFAULT_LIMIT_BYTES, FrameReader
from palpable._wire.messages import (
    GetStatus,
    Message,
    ServerAnswer,
    TaskOptions,
    TaskRequest,
    ToTaskProcess,
)
from palpable.units.task_exceptions import ServerError, ServerUnreachable

if TYPE_CHECKING:
    from palpable._connection.reconnecting import Again, Proven, Reconnecting
    from palpable._connection.tls_stream import TlsStream

LINGER_SECONDS = 0.002
"""How long the background thread leaves the socket to callers, after one of them used it."""
FRESH_SECONDS = 0.01
"""So long after somebody read, a connection is taken to be alive."""
CLOSE_SECONDS = 2.0
"""How long `close` tries to send what is unsent."""
ACCEPTANCE_SECONDS = 0.01
"""How often it looks whether everything is accepted, at most; only before the end."""
EXIT_SECONDS = 1.0
"""How long the exit of the interpreter does."""


class Connection:
    """A connection to a server, after the handshake. Safe to use from every thread.

    Args:
        stream: the socket, blocking, or a `TlsStream`.
        reader: what read from the socket before; a frame it has only a part of goes on here.
        first_bytes: or, in its place, the bytes it has read too many.
        inside_task: the server frees the slot of a task that waits on this connection (`task_waits`).
        task_id: of that task, where the connection is bound to it.
        on_other: called with messages that are no answers (`RunTasks`), by whichever thread reads.
        info: what the server says of itself.
        address: of the server, for messages.
        read_by_callers: False: only the background thread reads and writes.
        again: how to connect again; None: never.
    """

    def __init__(
        self,
        stream: socket.socket | TlsStream,
        *,
        reader: FrameReader[Any] | None = None,
        first_bytes: bytes = b"",
        inside_task: bool = False,
        task_id: str = "",
        on_other: Callable[[Any], None] | None = None,
        info: Mapping[str, Any] | None = None,
        address: str = "",
        read_by_callers: bool = True,
        again: Again | None = None,
    ) -> None:
        self.info: Mapping[str, Any] = info or {}
        self.address = address
        self.is_inside_task = inside_task
        self._task_id = task_id
        self._on_other = on_other
        self._is_direct = read_by_callers
        self._lock = threading.RLock()
        self._leadership = Leadership(by_anyone=read_by_callers)
        self._background = Background(self)
        self._leadership.background = self._background
        self.pending = Pending(self._background.call)
        self._takers = self.pending.takers
        self._used_at = self._looked_at = monotonic()
        self._broken = ""
        self._is_up = True
        """Whether the link is not broken, as far as is known."""
        self._is_abandoned = False
        self._is_orphan = False
        self._reconnecting = self._make_reconnecting(again)
        self._install(self._new_link(stream, reader.take_rest() if reader is not None else first_bytes))
        self.link.incoming.has_progressed = True  # to be connected is enough, the first time
        forking.register(self)

    def _new_link(self, stream: socket.socket | TlsStream, first_bytes: bytes | bytearray) -> Link:
        return Link(
            stream,
            first_bytes,
            ServerAnswer if self._on_other is None else ToTaskProcess,
            self.pending,
            self._background,
            is_direct=self._is_direct,
            on_other=self._on_other,
            on_break=self._on_break,
        )

    def _install(self, link: Link) -> None:
        self.link, self._outbox, self._sender = link, link.outbox, link.sender
        limit = int(self.info.get("max_payload_bytes") or DEFAULT_LIMIT_BYTES)
        self._max_task_bytes = limit - FRAME_OVERHEAD_BYTES

    @property
    def stream(self) -> socket.socket | TlsStream:
        """The socket, at the moment."""
        return self.link.stream

    # --- submitting -----------------------------------------------------------------------------------------------

    def submit(self, request: TaskRequest, function: bytes, options: TaskOptions, taker: ResultTaker) -> None:
        """Submit a task whose result `taker` gets. Does not wait; the task leaves within a millisecond or so.

        Raises:
            ServerUnreachable: the connection is broken; nothing was submitted.
            PayloadTooLarge: the server accepts less.
        """
        size = len(request.payload) + len(function)
        if size > self._max_task_bytes:
            raise too_large(request.name, size, self._max_task_bytes + FRAME_OVERHEAD_BYTES)
        if self._broken:
            raise self.error()
        try:
            is_full = self._outbox.add_task(request, function, options, "push", False, taker)
        except BaseException:  # interrupted
            self._takers.pop(request.task_id, None)
            raise
        if not self._is_up:
            self._after_break()
            return
        if is_full or self._sender.is_time:
            self._sender.flush()
        if not self._background.is_attentive:
            self._background.attend()

    def _after_break(self) -> None:
        """Something was added, and the link is broken.

        Perhaps only since the look before: then whoever found it broken may have looked for what is expected before.
        """
        if self._broken:
            self._fail_everything()
        else:
            self.ensure_link()

    def add_task(
        self,
        request: TaskRequest,
        function: bytes,
        options: TaskOptions,
        taker: ResultTaker | None,
        *,
        needs_exit: bool = False,
    ) -> None:
        """As `submit`, but the task leaves with the next `flush` or `wait`, unless the batch is full before.

        Args:
            taker: gets the result; None: the server keeps it for a query.
            needs_exit: the result is to hold exit status and usage.
        """
        size = len(request.payload) + len(function)
        if size > self._max_task_bytes:
            raise too_large(request.name, size, self._max_task_bytes + FRAME_OVERHEAD_BYTES)
        if self._broken:
            raise self.error()
        delivery: Delivery = "none" if taker is None else "push"
        is_full = self._outbox.add_task(request, function, options, delivery, needs_exit, taker)
        if not self._is_up:
            self._after_break()
            return
        if is_full:
            self.flush()
        if taker is None and self._reconnecting is not None:
            self._background.attend()  # perhaps nobody reads, and so nobody would see that it was not accepted

    # --- asking ---------------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[int], Message], on_answer: Callable[[Message], None] | None = None) -> Request:
        """Queue the request `make(request_id)`; the answer comes into what is returned. Leaves with the next `wait`."""
        request = Request(self._outbox.new_request_id(), on_answer)
        self._enter(request, make(request.request_id))
        return request

    def ask_for_logs(self, make: Callable[[int], Message]) -> LogRequest:
        """As `ask`, for an answer in pieces."""
        request = LogRequest(self._outbox.new_request_id())
        self._enter(request, make(request.request_id))
        return request

    def forget_results(self, task_ids: Iterable[str]) -> None:
        """Nobody waits for the results of these tasks any more."""
        for task_id in task_ids:
            self._takers.pop(task_id, None)

    def forget(self, request: Request) -> None:
        """Nobody waits for this answer any more."""
        self.pending.requests.pop(request.request_id, None)

    def _enter(self, request: Request, message: Message) -> None:
        if self._broken:
            raise self.error()
        try:
            self._outbox.ask(request, message)
        except BaseException:  # interrupted
            self.forget(request)
            raise
        if not self._is_up:
            self._after_break()

    def answer_to(self, make: Callable[[int], Message]) -> Any:
        """Ask, wait, and return the answer.

        Raises:
            PalpableError: the request was refused, or the connection broke.
        """
        request = self.ask(make)
        try:
            self.wait(request.is_done, (request,))
        finally:
            self.forget(request)
        if request.error is not None:
            raise request.error
        return request.answer

    def server_info(self) -> Mapping[str, Any]:
        """Return what the server says of itself; asks it, if it did not say so when the connection was made."""
        if not self.info:
            self.info = self.answer_to(lambda request_id: GetStatus(request_id=request_id)).status
        return self.info

    def send(self, message: Message) -> None:
        """Send a message that has no answer; the kernel has it when this returns.

        Raises:
            ServerUnreachable: the connection is broken.
        """
        if self._broken:
            raise self.error()
        self._outbox.add(message)
        # Completely: if the background thread was in the middle of a flush, our message leaves with it, in a moment.
        # A task process whose last message this is would end before, and the message with it.
        self._sender.flush_completely()
        if self._broken:
            raise self.error()

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait(
        self, is_done: Callable[[], bool], watched: Iterable[Watched], timeout_seconds: float | None = None
    ) -> bool:
        """Send everything, and wait until `is_done()`; return what it says at the end.

        Args:
            is_done: may become True only by what one of `watched` receives.
            timeout_seconds: at most so long; None: until it is.

        Raises:
            ServerUnreachable: the connection is broken, and `watched` is empty.
        """
        self.flush()
        if is_done():
            return True
        deadline = None if timeout_seconds is None else monotonic() + timeout_seconds
        blocked = Blocked(is_done)
        try:
            return self._wait_as(blocked, watched, deadline)
        finally:
            # Twice, because a Ctrl-C may come in the middle of the first: others would wait for ever.
            try:
                self._leave(blocked)
            except BaseException:
                self._leave(blocked)
                raise

    def _wait_as(self, blocked: Blocked, watched: Iterable[Watched], deadline: float | None) -> bool:
        is_done = blocked.is_done
        is_nested = False
        while not is_done():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            role = self._leadership.claim(blocked, watched, may_lead=self._is_up)
            if role is Role.FOLLOWER:
                if not self._is_up:
                    if self._broken and not watched:
                        raise self.error()
                    self.ensure_link()
                elif self._is_direct and self._leadership.is_vacant:
                    # The link came between the look and the claim, and woke those that followed then: not us.
                    continue
                if self._leadership.is_in_background or not self._is_direct:
                    self._background.wake()  # it hands over to us, or sends and reads for us
                # Only now: see the race in `waiting`.
                if not is_done():
                    self._leadership.sleep(blocked, left)
            else:
                is_nested = is_nested or role is Role.NESTED
                link = self.link
                if is_done():
                    continue  # a signal handler that came between the look and the claim led, and has read it
                link.read(left)
                while left is None and not link.broken and not is_done():
                    link.read(None)  # nobody else can have become the leader
        if is_nested:
            # What the outer reader waits for may have arrived here, while it waits for bytes. Have the server send
            # some.
            self.ask(lambda request_id: GetStatus(request_id=request_id), on_answer=self.pending.forget_answer)
            self.flush()
        return True

    def _leave(self, blocked: Blocked) -> None:
        nobody_reads = self._leadership.leave(blocked)
        self._used_at = self._looked_at = monotonic()
        if self._broken:
            self.link.dispose()
        elif nobody_reads and (self._is_awaited or self._is_orphan):
            self._background.attend()
        elif self._outbox.has_unsent and not self.is_inside_task:
            # Inside a task, acknowledgements leave with its next message; it sends one at least, when it ends.
            if self._outbox.has_tasks:
                self._background.attend()
            else:
                self._background.attend_calmly()

    def read_until(self, is_done: Callable[[], bool]) -> None:
        """Read, for the owner of the process, until a message given to `on_other` makes `is_done()` True.

        Raises:
            ServerUnreachable: the connection broke.
        """
        self.wait(is_done, ())

    def flush(self, *, wait: bool = True) -> None:
        """Send everything that is queued. Never raises, and does nothing while the connection is broken.

        Args:
            wait: whether to wait while the socket takes no more; else the background thread sends the rest.
        """
        self._sender.flush(wait=wait)

    # --- for the background thread --------------------------------------------------------------------------------

    def tend(self, now: float) -> float | None:
        """Send what has waited long enough; return in how many seconds to look again, None: when woken."""
        if self._broken:
            return None
        pause = self._sender.flush_lingering(now, at_once=self._is_orphan)
        if self._is_unneeded:
            self.break_off("its client is gone")
        return pause

    def was_used_within(self, seconds: float) -> bool:
        """Whether a call of somebody's ended that recently."""
        return monotonic() - self._used_at < seconds

    @property
    def is_send_blocked(self) -> bool:
        """Whether there is more to send as soon as the socket takes it."""
        return self._sender.is_blocked and self._is_up

    @property
    def _is_awaited(self) -> bool:
        """Whether something is to come that no thread waits for, or is to be read so that one can send."""
        return (
            bool(self._takers)
            or self._sender.is_waiting
            or (self._reconnecting is not None and bool(self._outbox.unanswered))
        )

    @property
    def _is_unneeded(self) -> bool:
        leadership = self._leadership
        if not self._is_orphan or self._takers or leadership.has_followers or not leadership.is_vacant:
            return False
        return not (self._outbox.has_unsent if self._is_up else self._outbox.expects_something)

    def claim_for_background(self, now: float) -> tuple[bool, float | None]:
        """Return whether the background thread is to read, and if not, in how many seconds perhaps."""
        leadership = self._leadership
        if not self._is_up or not (self._is_awaited or (not self._is_direct and leadership.has_followers)):
            return False, None
        if not leadership.is_vacant:
            return False, None  # whoever reads has us woken when they leave
        since = now - self._used_at
        if since < LINGER_SECONDS and self._is_direct and not self._background.is_wanted_at_once:
            return False, LINGER_SECONDS - since
        self._background.is_wanted_at_once = False
        return leadership.claim_in_background(), None

    def needs_attention(self, is_reading: bool) -> bool:
        """Whether there is something to do that somebody may have added just now."""
        if not self._is_up or self.is_send_blocked:
            return False
        nobody_reads = self._leadership.is_vacant and not self._leadership.has_followers
        return self._outbox.has_unsent or self._is_unneeded or (not is_reading and nobody_reads and self._is_awaited)

    def read_in_background(self, *, is_ready: bool) -> bool:
        """Read without waiting; return whether there was something.

        Args:
            is_ready: the socket has something; else only what was received before is delivered.
        """
        link = self.link
        if not is_ready and not link.has_more:
            return False
        link.read(0.0 if is_ready else None)
        return True

    def release_from_background(self) -> None:
        """The background thread stops reading, for a moment or for good."""
        self._leadership.leave_in_background()

    def read_at_once(self) -> None:
        """Somebody waits for a future by other means than a call of ours: read for them, at once."""
        self._background.read_at_once()

    # --- ends -----------------------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether it is not broken, as far as is known. It may be about to be made whole again."""
        return not self._broken

    @property
    def is_away(self) -> bool:
        """Whether the server can't be reached at the moment."""
        return not self._is_up

    def check_process(self) -> None:
        """Raise ServerUnreachable in a forked child, where nothing can arrive on this connection any more."""
        if self._is_abandoned:
            raise self.error()

    def error(self) -> ServerUnreachable:
        """Return what to raise for a connection that is broken."""
        return broken(self._broken, self.address)

    def is_stale(self) -> bool:
        """Whether a new one is needed: it is broken, or bound to a task that this process no longer runs.

        Asks the kernel, if nobody has read for a moment: the server may have ended.
        """
        if self._task_id and self._task_id != current_task_id():
            return True
        now = monotonic()
        if now - self._looked_at >= FRESH_SECONDS and self._is_direct and self._leadership.is_vacant:
            self._looked_at = now
            self.link.look()
        # While it is being made whole again, calls join those that wait for that.
        return not self._is_up and not self.needs_link

    def break_off(self, reason: str) -> None:
        """Fail everything that is pending, and everything to come."""
        with self._lock:
            if self._broken:
                return
            # First the flag, then the failing: see `submit`.
            self._broken, self._is_up = reason, False
        try:
            self._break_off(reason)
        except BaseException:  # interrupted in the middle; nobody else would do the rest
            self._break_off(reason)
            raise

    def _break_off(self, reason: str) -> None:
        if self._reconnecting is not None:
            self._reconnecting.stop()
        self.link.break_off(reason)
        self._fail_everything()
        if self._background.is_running:
            self._background.stop(wait=False)
        self.link.dispose()

    def _fail_everything(self) -> None:
        self.pending.fail_everything(self.error)
        self._leadership.wake_all()

    def close(self, *, wait: bool = True) -> None:
        """Send what is unsent, and end the connection. Safe to call twice.

        Args:
            wait: until the background thread has ended, if no callback of the user keeps it busy.
        """
        self._flush_at_end(CLOSE_SECONDS)
        self.break_off("it was closed")
        if self._reconnecting is not None:
            self._reconnecting.stop(wait_seconds=CLOSE_SECONDS if wait else 0.0)
        self._background.stop(wait=wait)
        self.link.dispose()

    def _flush_at_end(self, seconds: float) -> None:
        """Send everything, and see it accepted, within so long.

        To send is not enough: the server would find the connection closed when it answers the first of what it reads,
        and read no further.
        """
        deadline = monotonic() + seconds
        if not self._is_up and self.needs_link and self._outbox.expects_acceptance:
            with suppress(ServerUnreachable):
                self.wait(lambda: self._is_up, (), seconds)
        if self._is_up:
            self._sender.flush_at_end(seconds)
        while self._is_up and self._outbox.expects_acceptance and (left := deadline - monotonic()) > 0:
            with suppress(ServerUnreachable):
                # In steps: if another thread reads, nothing wakes this one for an acceptance.
                self.wait(lambda: not self._outbox.expects_acceptance, (), min(left, ACCEPTANCE_SECONDS))

    def close_when_idle(self) -> None:
        """The client is gone: close once no future is pending. Waits for nothing: the garbage collector calls it."""
        self._is_orphan = True
        if self._takers or self._background.is_running or self.needs_link:
            self._background.wake()
        elif not self._broken:
            self.flush(wait=False)
            self.break_off("its client is gone")

    def abandon(self, reason: str) -> None:
        """Give the socket back without a word, to the process that forked this one or because this one exits.

        Nobody is told: there are no other threads in a forked child, and those of a process that exits are stopped.
        """
        self._broken, self._is_up = reason, False
        self._is_abandoned = True
        self._reconnecting = None
        self._lock = threading.RLock()
        self._leadership = Leadership(by_anyone=True)
        self._outbox = Outbox()
        self.pending.takers.clear()
        self.pending.requests.clear()
        self._background.abandon()
        self.link.abandon(reason)

    # --- whole again ----------------------------------------------------------------------------------------------

    def _make_reconnecting(self, again: Again | None) -> Reconnecting | None:
        # Inside a task the server is the task's own: they end together.
        if again is None or again.seconds == 0 or self.is_inside_task:
            return None
        from palpable._connection.reconnecting import Reconnecting

        return Reconnecting(again, self)

    @property
    def needs_link(self) -> bool:
        """Whether it is to be made whole again: something is expected."""
        return not self._is_up and not self._broken and self._outbox.expects_something

    def ensure_link(self) -> None:
        """Have it made whole again, if it needs to be."""
        if self._reconnecting is None:
            return
        try:
            self._reconnecting.ensure()
        except RuntimeError as error:
            self.give_up(f"no thread could be started to connect again: {error}")

    def give_up(self, reason: str) -> None:
        """It can't be made whole again."""
        self.break_off(f"{self.link.broken}; {reason.rstrip('.')}")

    def adopt(self, proven: Proven) -> None:
        """Go on with a new socket. Called by `reconnecting`.

        Raises:
            ServerError: it leads to another server, which knows nothing of what is expected.
        """
        if not self.try_adopt(proven):
            proven.stream.close()
            raise ServerError(f"another server than before answers at {self.address}")

    def resume(self, proven: Proven) -> bool:
        """Go on with a socket that a caller has made, since nothing was expected and so nobody connected again.

        Returns False if that can't be; the socket is still the caller's then.
        """
        return self._reconnecting is not None and self._reconnecting.adopt(proven)

    def try_adopt(self, proven: Proven, *, is_new: bool = False) -> bool:
        """Go on with a new socket; return False if it leads to another server, or this connection is broken for good.

        Not for the main thread: see `Outbox.hand_over`.

        Args:
            is_new: somebody calls anew; this is no further try to save what is expected.
        """
        server_id = self.info.get("server_id")
        if self._broken or not server_id or proven.info.get("server_id") != server_id:
            return False
        if proven.inside_task:
            return False  # what waits on a socket of a task's has to say so, and this connection would not
        if isinstance(proven.stream, socket.socket) is not self._is_direct:
            return False
        link = self._new_link(proven.stream, proven.reader.take_rest())
        link.incoming.has_progressed = is_new
        with self._lock:
            if self._broken:  # closed meanwhile
                return False
            if self._is_up:  # somebody was faster
                proven.stream.close()
                return True
            # In this order: who adds to the old outbox from now on adds to the new one; who looks whether it is up, and
            # finds it so, finds the new link.
            self._outbox.hand_over(link.outbox, monotonic())
            self.info = proven.info
            self._install(link)
            self._is_up = True
        self.flush(wait=False)
        self._leadership.wake_all()
        if self._is_awaited or self._background.is_running:
            self._background.wake()
        return True

    def _on_break(self, link: Link) -> None:
        """A link has broken."""
        if self._reconnecting is None:
            self.break_off(link.broken)
            return
        with self._lock:
            if link is not self.link or self._broken:
                return
            if self._is_up:
                self._reconnecting.broke(self.info, has_progressed=link.incoming.has_progressed)
                # First the flag, then the look for what is expected: see `_after_break`.
                self._is_up = False
        for request in list(self.pending.requests.values()):
            if not request.is_repeatable:
                request.fail(broken(link.broken, self.address))
        self._leadership.wake_all()
        self.ensure_link()


def _flush_all() -> None:
    """At the exit of the interpreter: what was submitted leaves. Nobody waits for results."""
    for connection in forking.open_connections():
        if connection.is_usable:
            connection._flush_at_end(EXIT_SECONDS)
            connection.abandon("the interpreter exits")


atexit.register(_flush_all)
