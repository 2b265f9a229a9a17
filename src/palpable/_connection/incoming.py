"""What to do with each message that comes over one socket.

As in `pending`, `handle` may be called with the same message again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from palpable._connection.outbox import SMALL_RESULT_BYTES, Outbox
from palpable._connection.pending import Pending
from palpable._connection.waiting import LogRequest
from palpable._wire.messages import (
    Done,
    LogChunk,
    RequestFailed,
    ResultsFound,
    ResultsPushed,
    ResultsWatched,
    StatusReport,
    TaskList,
    TasksAccepted,
    TasksCancelled,
    TasksPurged,
    TasksRetried,
    WaitOver,
)
from palpable.units.task_exceptions import TaskLost, error_named


class Incoming:
    """Gives every message to whoever expects it.

    Args:
        pending: who expects what.
        outbox: of the same socket. What is accepted, refused or received over this one says nothing of the next.
        flush_at_once: sends what is unsent.
    """

    def __init__(self, pending: Pending, outbox: Outbox, flush_at_once: Callable[[], None]) -> None:
        self._pending = pending
        self._outbox = outbox
        self._flush_at_once = flush_at_once
        self.has_progressed = False
        """Whether anything came that was waited for."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            ResultsPushed: self._on_results,
            TasksAccepted: self._on_accepted,
            RequestFailed: self._on_failed,
            ResultsFound: self._on_found,
            ResultsWatched: self._on_watched,
            WaitOver: self._on_wait_over,
            LogChunk: self._on_log,
            TasksCancelled: self._on_answer,
            TasksRetried: self._on_answer,
            TasksPurged: self._on_answer,
            TaskList: self._on_answer,
            StatusReport: self._on_answer,
            Done: self._on_answer,
        }

    def handle(self, message: Any) -> bool:
        """Deliver `message`; return False if it is nothing that was asked for."""
        handler = self._handlers.get(type(message))
        if handler is None:
            return False
        handler(message)
        return True

    def _on_results(self, message: ResultsPushed) -> None:
        pending = self._pending
        for request_id in message.accepted:
            self._on_accepted(TasksAccepted(request_id=request_id))
        takers = pending.takers
        reports: list[Any] = message.returned
        if not reports:
            reports = message.reports
        elif message.reports:
            reports = reports + message.reports
        for report in reports:
            taker = takers.get(report.task_id)
            if taker is not None:
                # As `take_result`, written out: this is done for every task.
                if not taker.take(report):
                    pending.finish_later(taker, report)
                takers.pop(report.task_id, None)
        is_small = len(reports) == 1 and len(reports[0].payload or b"") <= SMALL_RESULT_BYTES
        self._outbox.acknowledge(message.sequence, is_small=is_small)
        self.has_progressed = True

    def _on_found(self, message: ResultsFound) -> None:
        self._on_answer(message)
        if message.sequence:
            self._outbox.acknowledge(message.sequence)
            # At once: another client may ask for the same task, and must not be told that it is still there.
            self._flush_at_once()

    def _on_watched(self, message: ResultsWatched) -> None:
        # Who only waits for a long task hears nothing else for as long as it runs, however often the server is started
        # again meanwhile. Who has submitted hears whether that was accepted; until then it may be what breaks it.
        self.has_progressed = self.has_progressed or not self._outbox.expects_acceptance
        for task_id in message.unknown:
            self._pending.fail_taker(
                task_id,
                TaskLost(
                    f"the connection to the server broke after task {task_id} was submitted, and the server that "
                    f"answers now does not know the task: its result expired or was taken meanwhile, or the server "
                    f"was started again without what it had stored",
                    task_id=task_id,
                ),
            )

    def _on_accepted(self, message: TasksAccepted) -> None:
        self._outbox.accepted(message.request_id)
        self._on_answer(message)  # if it was a question of its own, and not a batch of the outbox
        self.has_progressed = True

    def _on_wait_over(self, message: WaitOver) -> None:
        request = self._pending.requests.get(message.wait_id)
        if request is not None:
            request.settle(message)

    def _on_answer(self, message: Any) -> None:
        self.has_progressed = True
        request = self._pending.requests.get(message.request_id)
        if request is not None:
            request.settle(message)

    def _on_log(self, message: LogChunk) -> None:
        request = self._pending.requests.get(message.request_id)
        if not isinstance(request, LogRequest):
            return
        before = request.received_bytes
        if request.add(message, self._outbox):
            self.has_progressed = self.has_progressed or request.received_bytes > before
            if message.is_last:
                request.settle(message)

    def _on_failed(self, message: RequestFailed) -> None:
        request = self._pending.requests.get(message.request_id)
        if request is not None:
            request.fail(error_named(message.error, message.message))
        refused = self._outbox.refused(message.request_id)
        if refused is not None:
            for task in refused.tasks:
                self._pending.fail_taker(task.task_id, error_named(message.error, message.message))
            self._outbox.forget(message.request_id)
