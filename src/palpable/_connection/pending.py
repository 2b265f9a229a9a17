"""What is expected from the server, and what to do with it when it comes.

Every method that takes a message may be called with the same one again: a Ctrl-C can interrupt the thread that reads
anywhere, and the next one then delivers the message once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from palpable._connection.outbox import Outbox
from palpable._connection.waiting import LogRequest, Request, ResultTaker
from palpable._wire.messages import (
    Done,
    LogChunk,
    RequestFailed,
    ResultsFound,
    ResultsPushed,
    StatusReport,
    TaskList,
    TaskReport,
    TasksAccepted,
    TasksCancelled,
    TasksPurged,
    TasksRetried,
    WaitOver,
)
from palpable.units.task_exceptions import error_named


class Pending:
    """Results and answers that are to come over one connection.

    Args:
        outbox: of the connection.
        run_in_background: calls a function on the connection's background thread.
        flush_at_once: sends what is unsent.
    """

    def __init__(
        self, outbox: Outbox, run_in_background: Callable[[Callable[[], None]], None], flush_at_once: Callable[[], None]
    ) -> None:
        self._outbox = outbox
        self._run_in_background = run_in_background
        self._flush_at_once = flush_at_once
        self.takers: dict[str, ResultTaker] = {}
        """Who gets the result of which task."""
        self.requests: dict[int, Request] = {}
        """Questions without an answer, by id."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            ResultsPushed: self._on_results,
            TasksAccepted: self._on_accepted,
            RequestFailed: self._on_failed,
            ResultsFound: self._on_found,
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

    def take_result(self, report: TaskReport) -> None:
        """Give a result to whoever expects it."""
        taker = self.takers.get(report.task_id)
        if taker is not None:
            if not taker.take(report):
                self._finish_later(taker, report)
            # Only now: an interrupt before this line has the message delivered once more.
            self.takers.pop(report.task_id, None)

    def forget_answer(self, answer: Any) -> None:
        """An `on_answer` for requests that nobody waits for."""
        self.requests.pop(answer.request_id, None)

    def fail_everything(self, make_error: Callable[[], Exception]) -> None:
        """Nothing comes any more."""
        for task_id in list(self.takers):
            self._fail_taker(task_id, make_error())
        for request in list(self.requests.values()):
            request.fail(make_error())

    def _on_results(self, message: ResultsPushed) -> None:
        takers = self.takers
        for report in message.reports:
            taker = takers.get(report.task_id)
            if taker is not None:
                # As `take_result`, written out: this is done for every task.
                if not taker.take(report):
                    self._finish_later(taker, report)
                takers.pop(report.task_id, None)
        self._outbox.acknowledge(message.sequence)

    def _finish_later(self, taker: ResultTaker, report: TaskReport) -> None:
        self._run_in_background(lambda: taker.finish(report))

    def _on_found(self, message: ResultsFound) -> None:
        self._on_answer(message)
        if message.sequence:
            self._outbox.acknowledge(message.sequence)
            # At once: another client may ask for the same task, and must not be told that it is still there.
            self._flush_at_once()

    def _on_accepted(self, message: TasksAccepted) -> None:
        self._outbox.accepted(message.request_id)
        self._on_answer(message)  # if it was a question of its own, and not a batch of the outbox

    def _on_wait_over(self, message: WaitOver) -> None:
        request = self.requests.get(message.wait_id)
        if request is not None:
            request.settle(message)

    def _on_answer(self, message: Any) -> None:
        request = self.requests.get(message.request_id)
        if request is not None:
            request.settle(message)

    def _on_log(self, message: LogChunk) -> None:
        request = self.requests.get(message.request_id)
        if isinstance(request, LogRequest):
            request.add(message)
            if message.is_last:
                request.settle(message)

    def _on_failed(self, message: RequestFailed) -> None:
        request = self.requests.get(message.request_id)
        if request is not None:
            request.fail(error_named(message.error, message.message))
        refused = self._outbox.refused(message.request_id)
        if refused is not None:
            for task in refused.tasks:
                self._fail_taker(task.task_id, error_named(message.error, message.message))
            self._outbox.forget(message.request_id)

    def _fail_taker(self, task_id: str, error: Exception) -> None:
        taker = self.takers.get(task_id)
        if taker is not None:
            if not taker.fail(error):
                self._run_in_background(lambda: taker.finish_failed(error))
            self.takers.pop(task_id, None)
