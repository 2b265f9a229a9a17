"""Several who wait, over one connection, for the result of one task: all who name its idempotency key.

Results are given to one taker for each task id, so these enter as one. The race is between the reader, who delivers
and then removes the taker, and another who joins it meanwhile. Hence the order on both sides: who joins is first
entered, and then looks whether the result is there; the reader first notes the result, and then looks who is entered.
Whichever comes second sees the other. Both may deliver, which does no harm: a taker can be given its result twice.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from palpable._connection.waiting import ResultTaker
from palpable._wire.messages import Report
from palpable.units.task_exceptions import ServerUnreachable


class SharedTaker:
    """Gives what it gets to all its takers. Implements `ResultTaker`.

    Attributes:
        is_accepted: the server has the task. Before, it is perhaps not even submitted: others are entered among the
            takers together with their tasks, this one is first.
    """

    __slots__ = ("_error", "_report", "_takers", "is_accepted")

    def __init__(self, taker: ResultTaker) -> None:
        self.is_accepted = False
        self._takers = [taker]
        self._report: Report | None = None
        self._error: Exception | None = None

    def join(self, taker: ResultTaker) -> None:
        """Have `taker` get the result too; at once, if it is here."""
        self._takers.append(taker)
        # Nobody waits for a taker that has just been made, so none of it is left for the background thread.
        if self._report is not None:
            taker.take(self._report)
        elif self._error is not None:
            taker.fail(self._error)

    def take(self, report: Report) -> bool:
        self._report = report
        return all([taker.take(report) for taker in self._takers])

    def fail(self, error: Exception) -> bool:
        self._error = error
        return all([taker.fail(error) for taker in self._takers])

    def finish(self, report: Report) -> None:
        for taker in self._takers:
            taker.finish(report)

    def finish_failed(self, error: Exception) -> None:
        for taker in self._takers:
            taker.finish_failed(error)


def submit_shared(
    takers: MutableMapping[str, ResultTaker],
    task_id: str,
    taker: ResultTaker,
    submit: Callable[[ResultTaker], None],
) -> None:
    """Have `taker` get the result of a task that others may have submitted over the same connection.

    Args:
        takers: of the connection, by task id.
        submit: submits the task; called if nobody waits for it yet.
    """
    shared = SharedTaker(taker)
    # One step, so that of two threads the second joins the first.
    entered = takers.setdefault(task_id, shared)
    if entered is not shared:
        assert isinstance(entered, SharedTaker), "ids made from a key are entered only here"
        entered.join(taker)
        return
    try:
        submit(shared)
    except BaseException as error:
        takers.pop(task_id, None)
        # Another thread may have joined, and waits for what was not submitted.
        shared.fail(error if isinstance(error, Exception) else ServerUnreachable("the submission was interrupted"))
        raise
