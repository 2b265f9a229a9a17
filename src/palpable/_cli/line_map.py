"""A function over lines that come one by one, perhaps typed by hand: each result is there before the next line is.

`Client.imap` reads the next param before it hands out a result, which is right for a list and wrong for `tail -f`. So
here a thread reads and submits, as far ahead as the window allows, while the caller takes results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from palpable._cli.attended_task import cancel_soon
from palpable.units.task_exceptions import ServerUnreachable

if TYPE_CHECKING:
    from palpable._wire.messages import Report
    from palpable.units.client import ClientView
    from palpable.units.task_future import TaskFuture

READ_BYTES = 1 << 16


class Line(NamedTuple):
    """A line, its number from 1, and the task that has it."""

    number: int
    future: TaskFuture[Any]

    def report(self) -> Report:
        """Return how the task has ended, as the server says it; to be asked before the future is.

        Raises:
            PalpableError: nothing more is heard of it.
        """
        report = self.future._report
        if report is None:
            self.future.result(0)
            raise AssertionError("a future without a report has an error")
        return report


class LineEnd(NamedTuple):
    """There are no more lines, or an error came in place of the next."""

    error: Exception | None


class LineMap:
    """Submits a task for each param, and yields the tasks as they end. To be closed.

    Args:
        view: with the options of the tasks.
        params: numbers of lines, and what the function gets for each; read by a thread.
        window: so many tasks may have been submitted and not yielded.
        is_ordered: yield in the order of the lines; else as they end.
        before_waiting: called when the next one has not ended.
    """

    def __init__(
        self,
        view: ClientView,
        function: Callable[[Any], Any],
        params: Iterator[tuple[int, Any]],
        *,
        window: int,
        is_ordered: bool,
        before_waiting: Callable[[], object],
    ) -> None:
        self._view = view
        self._function = function
        self._params = params
        self._is_ordered = is_ordered
        self._before_waiting = before_waiting
        self._room = threading.Semaphore(window)
        self._is_closed = False
        self._submitting = threading.Lock()
        self._submitted: dict[int, TaskFuture[Any]] = {}
        self._arrivals: SimpleQueue[Line | LineEnd] = SimpleQueue()
        # A daemon: it may be in the middle of a read that never ends.
        self._thread = threading.Thread(target=self._read, name="palpable-lines", daemon=True)

    def __iter__(self) -> Iterator[Line]:
        """Yield lines whose tasks have ended; raises the error of the params in its place.

        Raises:
            PalpableError: nothing can be submitted any more.
        """
        self._thread.start()
        end: LineEnd | None = None
        while end is None or self._submitted:
            if self._arrivals.empty():
                self._before_waiting()
            arrival = self._arrivals.get()
            if isinstance(arrival, LineEnd):
                end = arrival
                continue
            if not arrival.future.done():
                self._before_waiting()
                arrival.future._wait(None)  # reads the socket in this thread meanwhile
            yield arrival
            # Only now: the window bounds what is not yet taken, not what has not ended.
            del self._submitted[arrival.number]
            self._room.release()
        if end.error is not None:
            raise end.error

    def _read(self) -> None:
        """In the thread: read, wait for room, submit; until the end of the lines or of the map."""
        error: Exception | None = None
        try:
            for number, param in self._params:
                self._room.acquire()
                # May take as long as a server is waited for, and `close` must not wait for that.
                self._view._get_connection()
                with self._submitting:
                    if self._is_closed:
                        return
                    line = Line(number, self._view.submit(self._function, param))
                    self._submitted[number] = line.future
                if self._is_ordered:
                    self._arrivals.put(line)
                else:
                    line.future.add_done_callback(lambda _, line=line: self._arrivals.put(line))  # type: ignore[misc]
        except Exception as raised:
            error = raised
        # Who against whom: the caller, who finds nothing submitted and the end, against us. We put the end last.
        self._arrivals.put(LineEnd(error))

    def close(self) -> list[str]:
        """Submit nothing more, and cancel what has not been yielded; return the ids of what could not be cancelled.

        Whatever server has these tasks, or comes next on its store, goes on with them. Never takes long.
        """
        self._is_closed = True
        self._room.release()
        with self._submitting:  # what is being submitted at this moment counts too
            left = [future for future in self._submitted.values() if not _has_ended(future)]
        if not left:
            return []
        task_ids = [future.task_id for future in left]
        # The one they were submitted over, as it is: to make another may take as long as a server is waited for.
        connection = left[-1]._connection
        if cancel_soon(connection, task_ids):
            return []
        # What a server keeps in memory is gone with it.
        return task_ids if connection.is_usable or connection.info.get("is_durable") else []


def _has_ended(future: TaskFuture[Any]) -> bool:
    """Whether the task has; a future fails too when its connection does."""
    return future.done() and not isinstance(future._exception, ServerUnreachable)


def read_lines(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file as they come, without their ends, and their numbers from 1.

    Not from `sys.stdin`: a thread that is blocked there holds a lock without which Python can't end.
    """
    number = 0
    pieces: list[bytes] = []
    while data := os.read(descriptor, READ_BYTES):
        *lines, rest = data.split(b"\n")
        for line in lines:
            number += 1
            yield number, b"".join([*pieces, line])
            pieces = []
        if rest:
            pieces.append(rest)
    if pieces:
        yield number + 1, b"".join(pieces)
