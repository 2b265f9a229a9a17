"""A task that is submitted from the command line, and watched until it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palpable._connection import questions
from palpable._connection.questions import follow_logs
from palpable._connection.task_waits import TaskWait, wait_for_tasks
from palpable._wire.messages import QueryResults, SubmitTasks, TaskReport, TaskRequest
from palpable._wire.payload import dumps_call, dumps_function
from palpable.units.task import new_task_id
from palpable.units.task_exceptions import PalpableError, ServerUnreachable, UnknownTask

if TYPE_CHECKING:
    from palpable._connection.connection import Connection
    from palpable.units.client import Client, ClientView


def submit(
    view: ClientView, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> str:
    """Submit a task whose result the server keeps; return its id once the server has accepted it.

    Args:
        view: with the task's options.
        name: shown in lists, unless the options say another one.

    Raises:
        PalpableError: the server refuses it, or can't be reached.
    """
    pickled = dumps_function(function)
    request = TaskRequest(new_task_id(), "call", pickled.key, dumps_call(args, kwargs), name)
    view._get_connection().answer_to(
        lambda request_id: SubmitTasks(
            request_id=request_id,
            tasks=[request],
            functions={pickled.key: pickled.data},
            options=view._levels.plain,
            delivery="none",
        )
    )
    return request.task_id


def attend(client: Client, task_id: str, on_output: Callable[[str], None] | None) -> TaskReport:
    """Wait until a task has ended, and return how; the server keeps its result.

    Args:
        on_output: called with what it prints, as it prints; None: that is left to `palpable logs`.

    Raises:
        UnknownTask: the server does not know it any more.
        ServerUnreachable: the connection broke, and there is no other.
    """
    try:
        report = _attend(client._get_connection(), task_id, on_output)
    except ServerUnreachable:
        # The server may be there again: what it has printed meanwhile is in its log.
        (report,) = questions.query_results(client._get_connection(), [task_id], -1.0, take=False)
    if report is None:
        raise UnknownTask(
            f"the server has dropped task {task_id} as soon as it ended: it keeps too few finished tasks",
            task_id=task_id,
        )
    return report


def _attend(connection: Connection, task_id: str, on_output: Callable[[str], None] | None) -> TaskReport | None:
    # Asked before it is followed, so that the answer comes even if the server keeps it no moment longer.
    request = connection.ask(
        lambda request_id: QueryResults(request_id=request_id, task_ids=[task_id], wait_seconds=-1.0, take=False)
    )
    try:
        if on_output is not None:
            _follow(connection, task_id, on_output)
        wait_for_tasks(connection, request.is_done, (request,), lambda: (task_id,))
    finally:
        connection.forget(request)
    if request.error is not None:
        raise request.error
    report: TaskReport | None = request.answer.reports[0]  # type: ignore[union-attr]
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


def cancel_quietly(client: Client, task_id: str) -> None:
    """End a task nobody waits for any more. Never raises a `PalpableError`: the command ends for another reason."""
    try:
        client.cancel(task_id)
    except PalpableError:
        pass
