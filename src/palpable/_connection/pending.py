"""What is expected from the server: results and answers, whichever socket they will come over.

Every method that takes a message may be called with the same one again: a Ctrl-C can interrupt the thread that reads
anywhere, and the next one then delivers the message once more.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from palpable._connection.waiting import Request, ResultTaker
from palpable._wire.messages import Report


class Pending:
    """Who gets which result and which answer. It outlives the sockets of its connection.

    Args:
        run_in_background: calls a function where the code of users may run.
    """

    def __init__(self, run_in_background: Callable[[Callable[[], None]], None] = lambda function: function()) -> None:
        self._run_in_background = run_in_background
        self.takers: dict[str, ResultTaker] = {}
        """Who gets the result of which task."""
        self.requests: dict[int, Request] = {}
        """Questions without an answer, by id."""
        self.request_ids = count(1)
        """Ids that no other request of this connection has, over all its sockets."""

    def take_result(self, report: Report) -> None:
        """Give a result to whoever expects it."""
        taker = self.takers.get(report.task_id)
        if taker is not None:
            if not taker.take(report):
                self.finish_later(taker, report)
            # Only now: an interrupt before this line has the message delivered once more.
            self.takers.pop(report.task_id, None)

    def finish_later(self, taker: ResultTaker, report: Report) -> None:
        """Have the taker run the code of others that waits for the report."""
        self._run_in_background(lambda: taker.finish(report))

    def fail_taker(self, task_id: str, error: Exception) -> None:
        """There will be no result of this task."""
        taker = self.takers.get(task_id)
        if taker is not None:
            if not taker.fail(error):
                self._run_in_background(lambda: taker.finish_failed(error))
            self.takers.pop(task_id, None)

    def forget_answer(self, answer: Any) -> None:
        """An `on_answer` for requests that nobody waits for."""
        self.requests.pop(answer.request_id, None)

    def fail_everything(self, make_error: Callable[[], Exception]) -> None:
        """Nothing comes any more."""
        for task_id in list(self.takers):
            self.fail_taker(task_id, make_error())
        for request in list(self.requests.values()):
            request.fail(make_error())
