"""A task that is submitted from the command line, and watched until it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from palpable._connection.questions import follow_logs
from palpable._connection.task_waits import TaskWait, wait_for_tasks
from palpable._wire.messages import CancelTasks, QueryResults, ResultsFound, SubmitTasks, TaskReport, TaskRequest
from palpable._wire.payload import dumps_call, dumps_function
from palpable.units.option_levels import task_id_for_key
from palpable.units.task import new_task_id
from palpable.units.task_exceptions import PalpableError, ServerUnreachable, UnknownTask

if TYPE_CHECKING:
    from palpable._connection.connection import Connection
    from palpable.units.client import ClientView

CANCEL_SECONDS = 5.0


def id_for(view: ClientView) -> str:
    """Return an id for a task with the options of `view`: a new one, or that of its key."""
    key = view._levels.plain.idempotency_key
    return task_id_for_key(key) if key else new_task_id()


def submit(
    view: ClientView,
    task_id: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
) -> None:
    """Submit a task whose result the server keeps; return once the server has accepted it.

    Args:
        view: with the task's options.
        task_id: known to the caller before, so that an interrupt at any moment can have the task cancelled.
        name: shown in lists, unless the options say another one.

    Raises:
        PalpableError: the server refuses it, or can't be reached.
    """
    pickled = dumps_function(function)
    options = view._levels.plain
    request = TaskRequest(task_id, "call", pickled.key, dumps_call(args, kwargs), name)
    view._get_connection().answer_to(
        lambda request_id: SubmitTasks(
            request_id=request_id,
            tasks=[request],
            functions={pickled.key: pickled.data},
            options=options,
            delivery="none",
        )
    )


def attend(connection: Connection, task_id: str, on_output: Callable[[str], None] | None) -> TaskReport:
    """Wait until a task has ended, and return how; the server keeps its result.

    Over the restart of a server that keeps its tasks, as long as the client connects again.

    Args:
        on_output: called with what it prints, as it prints; None: that is left to `palpable logs`.

    Raises:
        UnknownTask: the server does not know it any more.
        ServerUnreachable: the connection broke, and there is no other.
    """
    # Asked before it is followed, so that the answer comes even if the server keeps it no moment longer.
    request = connection.ask(
        lambda request_id: QueryResults(request_id=request_id, task_ids=[task_id], wait_seconds=-1.0, take=False)
    )
    try:
        if on_output is not None:
            try:
                _follow(connection, task_id, on_output)
            except ServerUnreachable:
                # A server that stops says how the task ended, and may close before all of its output is sent.
                if not request.is_done():
                    raise
        wait_for_tasks(connection, request.is_done, (request,), lambda: (task_id,))
    finally:
        connection.forget(request)
    if request.error is not None:
        raise request.error
    assert isinstance(request.answer, ResultsFound)
    (report,) = request.answer.reports
    if report is None:
        raise UnknownTask(
            f"the server has dropped task {task_id} as soon as it ended: it keeps too few finished tasks",
            task_id=task_id,
        )
    return report


def _follow(connection: Connection, task_id: str, on_output: Callable[[str], None]) -> None:
    # A command that was started by a task: that task's slot is free meanwhile, or one worker would be one too few.
    wait = TaskWait(connection, [task_id], "all") if connection.is_inside_task else None
    try:
        for piece in follow_logs(connection, task_id):
            on_output(piece)
    except UnknownTask:
        pass  # it ended, and was dropped, before it was followed
    finally:
        if wait is not None:
            wait.end()


def cancel_soon(connection: Connection, task_ids: Sequence[str]) -> bool:
    """End tasks nobody waits for any more, and wait a little until that is done. Return whether it was.

    Never raises a `PalpableError`, and never takes long: the command ends for another reason, and its user waits.
    """
    if not task_ids:
        return True
    try:
        request = connection.ask(lambda request_id: CancelTasks(request_id=request_id, task_ids=list(task_ids)))
        try:
            connection.wait(request.is_done, (request,), CANCEL_SECONDS)
            return request.is_done() and request.error is None
        finally:
            connection.forget(request)
    except PalpableError:
        return False
