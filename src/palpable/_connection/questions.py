"""What a client asks the server about tasks, apart from their results."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from palpable._connection.refusals import unknown_task
from palpable._connection.task_waits import TaskWait, wait_for_tasks
from palpable._wire.messages import (
    CancelTasks,
    ListTasks,
    PurgeTasks,
    QueryResults,
    ReadLogs,
    ResultsFound,
    RetryTasks,
    StopReading,
    TaskInfo,
    TaskReport,
    TasksCancelled,
)

if TYPE_CHECKING:
    from palpable._connection.connection import Connection
    from palpable._connection.waiting import Request


class Cancellable(Protocol):
    """A future."""

    task_id: str

    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...


def list_tasks(
    connection: Connection,
    states: Sequence[str] = (),
    limit: int = 1000,
    task_ids: Sequence[str] = (),
    *,
    tags: Sequence[str] = (),
    before: int | None = None,
) -> list[TaskInfo]:
    """Return what the server knows of tasks, newest first.

    Args:
        tags: only of those that have all of these.
        before: only of those with a lower `sequence`.
    """
    answer = connection.answer_to(
        lambda request_id: ListTasks(
            request_id=request_id,
            states=list(states),
            limit=limit,
            task_ids=list(task_ids),
            tags=list(tags),
            before=before,
        )
    )
    tasks: list[TaskInfo] = answer.tasks
    return tasks


def each_task(
    connection: Connection, states: Sequence[str] = (), *, tags: Sequence[str] = (), limit: int | None = None
) -> Iterator[TaskInfo]:
    """Yield what `list_tasks` returns, asked for in pages: of any number, in messages of a bearable size."""
    before: int | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE_TASKS if left is None else min(left, PAGE_TASKS)
        page = list_tasks(connection, states, size, tags=tags, before=before)
        yield from page
        if len(page) < size:
            return
        before = page[-1].sequence
        left = None if left is None else left - size


PAGE_TASKS = 2000


def task_info(connection: Connection, task_id: str) -> TaskInfo | None:
    """Return what the server knows of one task; None: nothing."""
    found = list_tasks(connection, task_ids=[task_id])
    return found[0] if found else None


def query_results(
    connection: Connection, task_ids: Sequence[str], wait_seconds: float = 0.0, *, take: bool = True
) -> list[TaskReport | None]:
    """Return what became of tasks, once all have ended or `wait_seconds` are over (below 0: never), in the order asked.

    Args:
        take: the results of those that have ended are removed from the server.
    """
    is_poll = wait_seconds == 0
    # A task that asks again and again waits too, only not in one call. So its slot is offered for the time of the
    # question, which is enough for what it asks about to be started.
    wait = TaskWait(connection, task_ids, "all") if is_poll and connection.is_inside_task else None
    request = connection.ask(
        lambda request_id: QueryResults(
            request_id=request_id, task_ids=list(task_ids), wait_seconds=wait_seconds, take=take
        )
    )
    if wait is not None:
        wait.end()

    def is_over_before_the_end() -> bool:
        answer = request.answer
        reports = answer.reports if isinstance(answer, ResultsFound) else []
        return any(report is not None and not report.outcome for report in reports)

    try:
        if is_poll:
            connection.wait(request.is_done, (request,))
        elif wait_seconds > 0 and not connection.is_inside_task:
            if not connection.wait(request.is_done, (request,), wait_seconds):
                # It answers at this moment. Unless it is away: then the time is over all the same.
                connection.wait(lambda: request.is_done() or connection.is_away, (request,))
            if not request.is_done():
                return [TaskReport(task_id, "ready") for task_id in task_ids]
        else:
            wait_for_tasks(
                connection, request.is_done, (request,), lambda: task_ids, is_cut_short=is_over_before_the_end
            )
    finally:
        connection.forget(request)
    if request.error is not None:
        raise request.error
    assert isinstance(request.answer, ResultsFound)
    return request.answer.reports


def cancel_tasks(connection: Connection, task_ids: Sequence[str]) -> list[bool]:
    """End these tasks; return for each whether it is cancelled by that."""
    if not task_ids:
        return []
    answer = connection.answer_to(lambda request_id: CancelTasks(request_id=request_id, task_ids=list(task_ids)))
    cancelled: list[bool] = answer.cancelled
    return cancelled


def retry_tasks(connection: Connection, task_ids: Sequence[str]) -> list[str]:
    """Submit again what these tasks ran; return the ids of the new tasks, "" for what can't be retried."""
    if not task_ids:
        return []
    answer = connection.answer_to(lambda request_id: RetryTasks(request_id=request_id, task_ids=list(task_ids)))
    new_task_ids: list[str] = answer.new_task_ids
    return new_task_ids


def purge_tasks(connection: Connection, states: Sequence[str] = (), older_than_seconds: float = 0.0) -> int:
    """Remove tasks that ended so long ago, in these final states or in any; return how many."""
    answer = connection.answer_to(
        lambda request_id: PurgeTasks(request_id=request_id, states=list(states), older_than_seconds=older_than_seconds)
    )
    count: int = answer.count
    return count


def cancel_without_waiting(connection: Connection, task_ids: Sequence[str]) -> None:
    """End these tasks; somebody who wanted the results no longer does."""
    connection.forget_results(task_ids)
    if task_ids and connection.is_usable:
        connection.ask(
            lambda request_id: CancelTasks(request_id=request_id, task_ids=list(task_ids)),
            connection.pending.forget_answer,
        )
        connection.flush()


def cancel_futures(connection: Connection, futures: Sequence[Cancellable], *, spares_running: bool = False) -> None:
    """End the tasks of these futures. Afterwards each says by `cancelled` whether that was done.

    Args:
        spares_running: only of those that have not begun.
    """
    pending = [future for future in futures if not future.done()]
    cancelled: list[bool] = []

    def on_answer(answer: Any) -> None:
        # By whoever reads, before anything that follows: whoever waits for one of them must see it at once.
        assert isinstance(answer, TasksCancelled)
        cancelled[:] = answer.cancelled
        for future, is_cancelled in zip(pending, cancelled, strict=True):
            if is_cancelled:
                connection.pending.take_result(
                    TaskReport(task_id=future.task_id, state="cancelled", outcome="cancelled")
                )

    request: Request = connection.ask(
        lambda request_id: CancelTasks(
            request_id=request_id, task_ids=[future.task_id for future in pending], spares_running=spares_running
        ),
        on_answer,
    )

    def is_done() -> bool:
        return request.is_done() and all(
            future.done() for future, is_cancelled in zip(pending, cancelled, strict=False) if is_cancelled
        )

    try:
        connection.wait(is_done, (request, *pending))  # type: ignore[arg-type]
    finally:
        connection.forget(request)
    if request.error is not None:
        raise request.error


# --- logs ---------------------------------------------------------------------------------------------------------


def read_logs(connection: Connection, task_id: str) -> str:
    """Return what a task printed so far.

    Raises:
        UnknownTask: the server knows no such task.
    """
    return "".join(_pieces(connection, task_id, follow=False))


def follow_logs(connection: Connection, task_id: str) -> Iterator[str]:
    """Yield what a task printed, and then what it prints, until it has ended.

    Raises:
        UnknownTask: the server knows no such task.
    """
    return _pieces(connection, task_id, follow=True)


def _pieces(connection: Connection, task_id: str, *, follow: bool) -> Iterator[str]:
    # A character may be cut in two between pieces; what is no UTF-8 is shown as such.
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    request = connection.ask_for_logs(
        lambda request_id: ReadLogs(request_id=request_id, task_id=task_id, follow=follow)
    )
    try:
        while True:
            connection.wait(request.has_news, (request,))
            if request.error is not None:
                raise request.error
            for piece in request.take_pieces():
                if not piece.is_known:
                    raise unknown_task(task_id)
                text = decode(piece.data, piece.is_last)
                if text:
                    yield text
                if piece.is_last:
                    return
    finally:
        connection.forget(request)
        if not request.is_done() and connection.is_usable:
            connection.send(StopReading(request_id=request.request_id))
