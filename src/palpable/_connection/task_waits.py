"""Waiting for tasks: in a client that is all there is to it; inside a task it frees the task's slot meanwhile.

A task that waits for sub-tasks says so before it sleeps (`BeginWait`), and goes on when they have ended *and* the
server has given it a slot again (`WaitOver`). If it gives up before, it says that (`EndWait`) and goes on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from palpable._connection.connection import Connection
from palpable._connection.waiting import Request, Watched
from palpable._wire.messages import BeginWait, EndWait


class TaskWait:
    """One wait of a thread inside a task. Begins when made; `end` must be called."""

    def __init__(self, connection: Connection, task_ids: Sequence[str], needs: Literal["all", "any"]) -> None:
        self._connection = connection
        self.request: Request = connection.ask(
            lambda wait_id: BeginWait(wait_id=wait_id, task_ids=list(task_ids), needs=needs)
        )

    def is_over(self) -> bool:
        """Whether the task has its slot again.

        Raises:
            WaitCycle, ServerError: the server refused: the task would wait for itself.
        """
        if self.request.error is not None:
            raise self.request.error
        return self.request.answer is not None

    def end(self) -> None:
        """Go on, with or without a slot."""
        self._connection.forget(self.request)
        if not self.request.is_done() and self._connection.is_usable:
            self._connection.send(EndWait(wait_id=self.request.request_id))


def wait_for_tasks(
    connection: Connection,
    is_done: Callable[[], bool],
    watched: Iterable[Watched],
    task_ids: Callable[[], Sequence[str]],
    timeout_seconds: float | None = None,
    *,
    needs: Literal["all", "any"] = "all",
    is_cut_short: Callable[[], bool] | None = None,
) -> bool:
    """Wait until `is_done()`, at most `timeout_seconds`; return whether it is.

    Args:
        task_ids: what is waited for; asked only inside a task.
        is_cut_short: True ends the wait at once, without a slot: what is left is not waited for.
    """
    if not connection.is_inside_task:
        return connection.wait(is_done, watched, timeout_seconds)
    if is_done():
        return True
    wait = TaskWait(connection, task_ids(), needs)
    try:
        connection.wait(
            lambda: (
                wait.request.error is not None
                or (is_done() and (wait.request.is_done() or (is_cut_short is not None and is_cut_short())))
            ),
            [*watched, wait.request],
            timeout_seconds,
        )
        if not is_done():
            wait.is_over()  # raises the refusal, if there was one
        return is_done()
    finally:
        wait.end()
