"""Threads that wait, and what they wait for.

A thread that waits is a `Blocked`: it either reads the socket itself, as the leader, or sleeps on a lock of its own
until the leader wakes it. What it waits for is an `Awaited`, which knows the sleepers to wake when something arrived.

The one race here is between a sleeper and the leader: the sleeper finds that nothing has arrived, the leader delivers
and finds no sleeper, the sleeper falls asleep for ever. Hence the order on both sides: the sleeper first enters
itself in `watchers` and then looks whether it is done; the leader first delivers and then looks into `watchers`.
Whichever comes second sees the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from palpable._wire.messages import BeginWait, LogChunk, Message, QueryResults, QuitServer, Report, RetryTasks


class Blocked:
    """A thread that cannot go on before `is_done()`."""

    __slots__ = ("_lock", "is_done")

    def __init__(self, is_done: Callable[[], bool]) -> None:
        self.is_done = is_done
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, timeout_seconds: float | None) -> None:
        """Sleep until woken, at most `timeout_seconds`. A wake-up from before is not lost. May wake without cause."""
        if timeout_seconds is None:
            self._lock.acquire()
        else:
            self._lock.acquire(timeout=min(max(timeout_seconds, 0.0), threading.TIMEOUT_MAX))

    def wake(self) -> None:
        """Wake it, or let its next sleep end at once. Safe to call twice, and from several threads."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # awake already


class Awaited:
    """Something that arrives. `watchers` are the sleepers to wake then; always replaced as a whole, under a lock."""

    __slots__ = ("watchers",)

    watchers: tuple[Blocked, ...]

    def __init__(self) -> None:
        self.watchers = ()

    def wake_watchers(self) -> None:
        """Wake every watcher that can go on."""
        for blocked in self.watchers:
            if blocked.is_done():
                blocked.wake()


class Watched(Protocol):
    """What a thread can wait for."""

    watchers: tuple[Blocked, ...]


class ResultTaker(Protocol):
    """Who gets the result of a task. The connection calls it from whichever thread reads."""

    def take(self, report: Report) -> bool:
        """Take the report; return False if `finish` is to be called on the background thread.

        Runs no code of the user, and may be called again with the same report: a Ctrl-C can interrupt it anywhere, and
        the next reader then delivers the message once more.
        """

    def finish(self, report: Report) -> None:
        """Take the report, and run the code of others that waits for it."""

    def fail(self, error: Exception) -> bool:
        """There will be no report. Returns as `take` does."""

    def finish_failed(self, error: Exception) -> None:
        """As `finish`."""


class Request(Awaited):
    """A question to the server, and its answer.

    Attributes:
        message: what was asked.
        way: what it was sent by; a new one after the connection broke.
    """

    __slots__ = ("answer", "asked_at", "error", "message", "on_answer", "request_id", "way")

    def __init__(self, request_id: int, on_answer: Callable[[Message], None] | None = None) -> None:
        super().__init__()
        self.request_id = request_id
        self.answer: Message | None = None
        self.error: Exception | None = None
        self.on_answer = on_answer
        self.message: Message | None = None
        self.asked_at = 0.0
        self.way: object = None

    def is_done(self) -> bool:
        """Whether there is an answer, or the certainty that there will be none."""
        return self.answer is not None or self.error is not None

    def settle(self, answer: Message) -> None:
        """The answer is here. May be called twice, as `ResultTaker.take`."""
        # The first counts: one that was asked again over a new connection may be answered twice, and what was taken the
        # first time is gone the second time.
        if self.answer is None:
            if self.on_answer is not None:
                self.on_answer(answer)
            self.answer = answer
        self.wake_watchers()

    def fail(self, error: Exception) -> None:
        """There will be no answer, unless there is one already: its server may have closed the connection behind it."""
        if self.answer is None and self.error is None:
            self.error = error
        self.wake_watchers()

    @property
    def is_repeatable(self) -> bool:
        """Whether to ask once more does no harm. To stop the next server, for one, is not what was meant."""
        return not isinstance(self.message, QuitServer | RetryTasks | BeginWait | None)

    def ask_again(self, now: float, way: object) -> Message:
        """Return what to ask over a new connection."""
        message, self.way = self.message, way
        assert message is not None
        if isinstance(message, QueryResults) and message.wait_seconds > 0:
            # What is over is over; below 0 would mean: for ever.
            left = max(0.0, message.wait_seconds - (now - self.asked_at))
            return replace(message, wait_seconds=left)
        return message


COMPARED_BYTES = 1 << 16
"""So much of the beginning of two logs is compared, to see whether one goes on with the other."""


class _Told(NamedTuple):
    """How far a log has come, after one more piece."""

    number: int
    piece: LogChunk | None
    """As it came."""
    news: LogChunk | None
    """What of it was not here before."""
    received_bytes: int
    position: int
    """Where in the log we are."""
    begin: bytes
    """How it begins."""
    skip_bytes: int
    again: bytes | None
    """After it was asked again: its beginning, as far as it has come."""


_NOTHING_TOLD = _Told(0, None, None, 0, 0, b"", 0, None)


class LogRequest(Request):
    """A question with an answer in many pieces."""

    __slots__ = ("_lock", "_next", "_told")

    def __init__(self, request_id: int) -> None:
        super().__init__(request_id)
        # Two readers may be here at once: of the connection that broke, who has a last piece in hand, and of the new
        # one. Reentrant, as a signal handler that comes between may read too.
        self._lock = threading.RLock()
        # A piece that is told and the note that it was told are one entry, so that no Ctrl-C comes between them. The
        # last entry stays when it is taken.
        self._told = [_NOTHING_TOLD]
        self._next = 1
        """The number of the first entry that is not taken."""

    @property
    def received_bytes(self) -> int:
        """How much has come that was not here before."""
        return self._told[-1].received_bytes

    def add(self, piece: LogChunk, way: object = None) -> bool:
        """One more piece; return whether it belongs to the answer. May be called twice, as `ResultTaker.take`.

        Args:
            way: by which it came. After `ask_again` only a new one counts, and begins with what is here already, if it
                is the same log: what an attempt printed is gone with the server that was killed, and the next attempt
                prints something else.
        """
        with self._lock:
            if way is not self.way:
                return False
            last = self._told[-1]
            if last.piece is not piece:
                told = _after(last, piece)
                # Else a signal handler has read meanwhile, and was given the same piece.
                if self._told[-1] is last:
                    self._told.append(told)
        self.wake_watchers()
        return True

    def ask_again(self, now: float, way: object) -> Message:
        with self._lock:
            last = self._told[-1]
            again = b"" if last.begin else None
            self._told.append(
                last._replace(number=last.number + 1, piece=None, news=None, skip_bytes=last.position, again=again)
            )
            return super().ask_again(now, way)

    def has_news(self) -> bool:
        """Whether there may be a piece that was not taken, or it is the end."""
        return self._told[-1].number >= self._next or self.is_done()

    def take_pieces(self) -> list[LogChunk]:
        """Return the pieces that came since the last call."""
        told = self._told[:]  # more may be added meanwhile; they are for the next call
        pieces = [one.news for one in told if one.news is not None and one.number >= self._next]
        self._next = told[-1].number + 1
        del self._told[: len(told) - 1]
        return pieces


def _after(last: _Told, piece: LogChunk) -> _Told:
    """Return how far the log has come with this piece."""
    number, data = last.number + 1, piece.data
    begin, position, skip_bytes = last.begin, last.position, last.skip_bytes
    if last.again is not None:
        data = last.again + data
        if len(data) < len(begin) and not piece.is_last:
            return last._replace(number=number, piece=piece, news=None, again=data)
        if not data.startswith(begin):
            begin, position, skip_bytes = b"", 0, 0
    skipped = min(skip_bytes, len(data))
    data = data[skipped:]
    if len(begin) < COMPARED_BYTES:
        begin += data[: COMPARED_BYTES - len(begin)]
    news = None
    if data or piece.is_last:
        news = piece if data == piece.data else replace(piece, data=data)
    return _Told(
        number, piece, news, last.received_bytes + len(data), position + len(data), begin, skip_bytes - skipped, None
    )


class Group(Awaited):
    """The arrivals of one bulk call, awaited together.

    Attributes:
        arrived: those that are here, in the order of their coming.
        first_failed: the first that came without success.
    """

    __slots__ = ("arrived", "first_failed")

    def __init__(self) -> None:
        super().__init__()
        self.arrived: dict[Arrival, None] = {}
        self.first_failed: Arrival | None = None


class Arrival:
    """A result on its way to a bulk call; lighter than a future. Implements `ResultTaker`."""

    __slots__ = ("error", "group", "is_chunk", "report", "task_id")

    def __init__(self, task_id: str, group: Group, *, is_chunk: bool = False) -> None:
        self.task_id = task_id
        self.group = group
        self.is_chunk = is_chunk
        self.report: Report | None = None
        self.error: Exception | None = None

    def is_there(self) -> bool:
        """Whether it has arrived, or never will."""
        return self.report is not None or self.error is not None

    def take(self, report: Report) -> bool:
        self.report = report
        self._arrive(report.outcome == "succeeded")
        return True

    def fail(self, error: Exception) -> bool:
        if self.report is None:
            self.error = error
            self._arrive(False)
        return True

    def _arrive(self, is_successful: bool) -> None:
        group = self.group
        if not is_successful and group.first_failed is None:
            group.first_failed = self
        group.arrived[self] = None
        if group.watchers:
            group.wake_watchers()

    def exception(self) -> BaseException:
        """Return what to raise for one that failed."""
        if self.report is None:
            assert self.error is not None
            return self.error
        from palpable._wire.payload import exception_of

        return exception_of(self.report)

    def finish(self, report: Report) -> None:
        self.take(report)

    def finish_failed(self, error: Exception) -> None:
        self.fail(error)
