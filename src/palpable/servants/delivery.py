"""Who waits for which result, and how it reaches them.

Runs in: the server process. The original called this the result cache: what it keeps is in the engine's records, what
it adds is who is to be told.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import SUCCEEDED
from palpable._store.store import Store, StoreBroken
from palpable._wire.messages import QueryResults, ResultsFound, ResultsPushed, TaskReport, TaskReturned
from palpable.servants.output_store import OutputStore
from palpable.servants.reports import report_of

SETTLE_SECONDS = 0.1
"""How long an answer waits for the exit status of a process whose task has ended. It takes less than a millisecond,
unless the process was told to end and takes its grace time."""
PUSH_MAX_BYTES = 1 << 20
"""Results that travel in one message, roughly."""
GATHER_SECONDS = 0.001
GATHER_ABOVE = 8
"""A peer that waits for more results than this gets them in groups, at most a millisecond late: it is woken less often.
One that waits for few gets each at once."""


class Peer(Protocol):
    """Who sends requests: a client's connection, or a task process."""

    connection_id: int
    inside_task: str
    is_writable: bool

    def send(self, message: Any) -> None: ...
    def owe(self, count: int) -> None: ...


class _Query:
    """A `QueryResults` that is not answered yet."""

    def __init__(self, peer: Peer, request: QueryResults) -> None:
        self.peer = peer
        self.request = request
        self.timer: asyncio.TimerHandle | None = None


class _Outbox:
    """What one peer is still to get, and what it has not acknowledged."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.due: deque[TaskRecord] = deque()
        self.sequence = 0
        self.unacknowledged: deque[tuple[int, list[str]]] = deque()
        self.queries: set[_Query] = set()
        self.answers: deque[_Query] = deque()
        """What can be answered when the peer has read."""
        self.is_closed = False
        self.outstanding = 0
        """Results it is still to be pushed, whose tasks have not ended."""
        self.pushed_at = 0.0


_Receiver = tuple[_Outbox, bool]
"""Who gets a result, and whether only with the exit status."""


class Delivery:
    """Pushes results to those who submitted, and answers queries when what they ask for is there.

    A result is removed only when the client has acknowledged it (`on_taken`).

    Args:
        tasks: all records by id.
        on_taken: called with ids whose results were acknowledged.
        send_saved: sends a peer what is true now, once it is on disk; given how large it is.
        store: holds the results of recovered tasks.
    """

    def __init__(
        self,
        tasks: dict[str, TaskRecord],
        outputs: OutputStore,
        on_taken: Callable[[list[str]], None],
        send_saved: Callable[[Peer, Any, int], None],
        store: Store | None = None,
    ) -> None:
        self._tasks = tasks
        self._send_saved = send_saved
        self._store = store
        self._outputs = outputs
        self._on_taken = on_taken
        self._outboxes: dict[int, _Outbox] = {}
        self._others: dict[str, list[_Receiver]] = {}
        """By id, for tasks that several clients named by the same key: who else gets the result."""
        self._queries: dict[str, list[_Query]] = {}
        self._dirty: set[_Outbox] = set()
        self._timer: asyncio.TimerHandle | None = None

    def _outbox(self, peer: Peer) -> _Outbox:
        outbox = self._outboxes.get(peer.connection_id)
        if outbox is None:
            outbox = self._outboxes[peer.connection_id] = _Outbox(peer)
        return outbox

    # --- who wants what ---

    def push_to(self, peer: Peer, task_ids: list[str], *, needs_exit: bool) -> None:
        """The peer gets the results of these tasks, which are known, when they are there."""
        receiver = self.receiver_of(peer, len(task_ids), needs_exit=needs_exit)
        for task_id in task_ids:
            self._tasks[task_id].receiver = receiver

    def receiver_of(self, peer: Peer, count: int, *, needs_exit: bool) -> object:
        """Return what makes the peer get the results of `count` tasks, as their `TaskRecord.receiver`."""
        outbox = self._outbox(peer)
        outbox.outstanding += count
        return (outbox, needs_exit)

    def withdraw_pushes(self, task_ids: list[str]) -> None:
        """Nobody is to get these results any more; what was pushed already stays so."""
        for task_id in task_ids:
            for outbox, _ in self._take_entries(task_id):
                outbox.outstanding -= 1

    def hand_over_pushes(self, task_ids: list[str], peer: Peer) -> None:
        """As `withdraw_pushes`, because `peer` is to get these results now.

        Who it takes them from has most likely connected again, as `peer`. But a task with a key may be another
        client's too, and that one still waits.
        """
        for task_id in task_ids:
            task = self._tasks.get(task_id)
            is_shared = task is not None and bool(task.policy.idempotency_key)
            for entry in self._take_entries(task_id):
                outbox = entry[0]
                if is_shared and not outbox.is_closed and outbox.peer is not peer:
                    self._others.setdefault(task_id, []).append(entry)
                else:
                    outbox.outstanding -= 1

    def _take_entries(self, task_id: str) -> list[_Receiver]:
        task = self._tasks.get(task_id)
        entry: _Receiver | None = None
        if task is not None:
            entry, task.receiver = task.receiver, None
        others = self._others.pop(task_id, None) if self._others else None
        return [*(() if entry is None else (entry,)), *(others or ())]

    def push_finished(self, tasks: list[TaskRecord]) -> None:
        """Push the results of tasks that were final already: submitted again, or watched."""
        self.on_finished(tasks)
        self.flush()

    def query(self, peer: Peer, request: QueryResults) -> None:
        """Answer now, or when all are there, or when the time is over."""
        query = _Query(peer, request)
        missing = self._missing(request)
        wait_seconds = request.wait_seconds
        if missing and wait_seconds == 0 and all(task.is_final for task in missing):
            wait_seconds = SETTLE_SECONDS
        if not missing or wait_seconds == 0:
            self._answer(query)
            return
        for task in dict.fromkeys(missing):  # the same may be asked for twice
            self._queries.setdefault(task.task_id, []).append(query)
        self._outbox(peer).queries.add(query)
        if wait_seconds > 0:
            query.timer = asyncio.get_running_loop().call_later(wait_seconds, self._answer, query)

    def _missing(self, request: QueryResults) -> list[TaskRecord]:
        records = [self._tasks[task_id] for task_id in request.task_ids if task_id in self._tasks]
        return [task for task in records if not task.is_settled and not task.is_taken]

    def acknowledge(self, peer: Peer, sequence: int) -> None:
        """The peer holds everything up to this number."""
        outbox = self._outboxes.get(peer.connection_id)
        if outbox is None:
            return
        unacknowledged = outbox.unacknowledged
        taken: list[str] = []
        while unacknowledged and unacknowledged[0][0] <= sequence:
            taken += unacknowledged.popleft()[1]
        if taken:
            self._on_taken(taken)

    def disconnected(self, peer: Peer) -> None:
        """Nothing can be told to this peer any more; what it had not acknowledged stays."""
        outbox = self._outboxes.pop(peer.connection_id, None)
        if outbox is None:
            return
        outbox.is_closed = True  # tasks have it as their receiver until they end
        self._dirty.discard(outbox)
        for query in list(outbox.queries):
            self._withdraw(query)
        outbox.answers.clear()

    # --- what happened ---

    def on_finished(self, tasks: Iterable[TaskRecord]) -> None:
        """These tasks are final. To be called again for one that is settled later."""
        others, queries = self._others, self._queries
        for task in tasks:
            receiver: _Receiver | None = task.receiver
            if receiver is not None:
                outbox, needs_exit = receiver
                if task.is_settled or not needs_exit:  # as `_make_due`, written out: this is done for every task
                    task.receiver = None
                    outbox.outstanding -= 1
                    if not outbox.is_closed:
                        outbox.due.append(task)
                        self._dirty.add(outbox)
            if others and task.task_id in others:
                for other in others.pop(task.task_id):
                    if task.is_settled or not other[1]:
                        self._make_due(other[0], task)
                    else:
                        others.setdefault(task.task_id, []).append(other)
            if queries and task.is_settled and task.task_id in queries:
                for query in queries.pop(task.task_id):
                    if not self._missing(query.request):
                        self._answer(query)

    def on_withdrawn(self, task_ids: list[str]) -> None:
        """These tasks never were: who asked for them is told so."""
        for task_id in task_ids:
            for query in self._queries.pop(task_id, ()):
                if not self._missing(query.request):
                    self._answer(query)

    def _make_due(self, outbox: _Outbox, task: TaskRecord) -> None:
        outbox.outstanding -= 1
        if not outbox.is_closed:
            outbox.due.append(task)
            self._dirty.add(outbox)

    def flush(self) -> None:
        """Send what is due, in as few messages as can be."""
        if not self._dirty:
            return
        now = time.monotonic()
        dirty, self._dirty = self._dirty, set()
        for outbox in dirty:
            if outbox.outstanding > GATHER_ABOVE and now - outbox.pushed_at < GATHER_SECONDS:
                self._dirty.add(outbox)
                continue
            outbox.pushed_at = now
            while outbox.due and outbox.peer.is_writable:
                self._push(outbox)
        if self._dirty and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._timer = None
        self.flush()

    def writable_again(self, peer: Peer) -> None:
        """The peer reads again."""
        outbox = self._outboxes.get(peer.connection_id)
        if outbox is None:
            return
        while outbox.answers and peer.is_writable:
            self._give_answer(outbox.answers.popleft())
        if outbox.due:
            self._dirty.add(outbox)
            self.flush()

    def _push(self, outbox: _Outbox) -> None:
        reports: list[TaskReport] = []
        returned: list[TaskReturned] = []
        task_ids: list[str] = []
        size, due = 0, outbox.due
        while due and size < PUSH_MAX_BYTES:
            task = due[0]
            ending = task.ending
            is_plain = task.outcome is SUCCEEDED and ending is not None
            is_returned = is_plain and type(ending) is TaskReturned and task.attempt == 1 and not task.followup_ids
            if is_returned and reports:
                break  # these come last in a message, and what has ended later goes with the next one
            due.popleft()
            task_ids.append(task.task_id)
            if is_returned:
                returned.append(ending)
                size += len(ending.payload) + 100
                continue
            report = report_of(task) if is_plain else self._report(task)
            reports.append(report)
            size += len(report.payload or b"") + 100
        outbox.sequence += 1
        outbox.unacknowledged.append((outbox.sequence, task_ids))
        outbox.peer.send(ResultsPushed(sequence=outbox.sequence, reports=reports, returned=returned))

    def _answer(self, query: _Query) -> None:
        self._withdraw(query)
        if query.peer.is_writable:
            self._give_answer(query)
        else:
            # The peer has asked for many results, perhaps for the same ones many times, and reads none.
            self._outbox(query.peer).answers.append(query)

    def _give_answer(self, query: _Query) -> None:
        request = query.request
        reports: list[TaskReport | None] = []
        taken: list[str] = []
        for task_id in request.task_ids:
            task = self._tasks.get(task_id)
            if task is None or task.is_taken:
                reports.append(None)
                continue
            reports.append(self._report(task))
            if task.is_final:
                taken.append(task_id)
        sequence = 0
        if request.take and taken:
            outbox = self._outbox(query.peer)
            outbox.sequence += 1
            sequence = outbox.sequence
            outbox.unacknowledged.append((sequence, taken))
        size = sum(len(report.payload or b"") for report in reports if report is not None)
        # Of the tasks in it some may have ended just now.
        message = ResultsFound(request_id=request.request_id, reports=reports, sequence=sequence)
        self._send_saved(query.peer, message, size)

    def _withdraw(self, query: _Query) -> None:
        if query.timer is not None:
            query.timer.cancel()
        outbox = self._outboxes.get(query.peer.connection_id)
        if outbox is not None:
            outbox.queries.discard(query)
        for task_id in query.request.task_ids:
            waiting = self._queries.get(task_id)
            if waiting is not None and query in waiting:
                waiting.remove(query)
                if not waiting:
                    del self._queries[task_id]

    def _report(self, task: TaskRecord) -> TaskReport:
        if task.is_taken:
            # Submitted again by a client that was not told that it had been accepted; meanwhile somebody else took the
            # result. To report a success without a value would be an answer, and a wrong one.
            message = "it has ended, and its result was handed to somebody else"
            return TaskReport(task.task_id, "failed", "lost", error_message=message)
        is_failure = task.outcome is not SUCCEEDED and task.is_final
        stored = None
        if task.is_on_disk and task.is_final and task.ending is None and self._store is not None:
            try:
                stored = self._store.result(task.sequence)
            except StoreBroken as error:
                return TaskReport(task.task_id, "failed", "lost", error_message=str(error))
            if stored is None and not is_failure:  # it was dropped while it waited for its turn
                message = "it has ended, and its result is kept no longer"
                return TaskReport(task.task_id, "failed", "lost", error_message=message)
        return report_of(task, self._outputs.last_lines(task.task_id) if is_failure else "", stored)
