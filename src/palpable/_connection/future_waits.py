"""`concurrent.futures.wait` and `as_completed` inside a task: they too free the task's slot while they sleep.

Both enter a waiter object into the `_waiters` of every future, and sleep on its `event`. Inside a task that list is
one that puts an event of ours in its place, which tells the server before it sleeps. Neither name is documented; they
have been so since Python 3.2. If a future version drops them, these two functions work on, but hold the slot: with
one worker, a task that waits by them would then wait for ever.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from palpable._connection.task_waits import TaskWait

if TYPE_CHECKING:
    from palpable.units.task_future import TaskFuture


class WaiterList(list[Any]):
    """The `_waiters` of a future inside a task."""

    def __init__(self, future: TaskFuture[Any]) -> None:
        super().__init__()
        self._future = future

    def append(self, waiter: Any) -> None:
        """`wait` or `as_completed` is about to sleep."""
        event = getattr(waiter, "event", None)
        if type(event) is threading.Event and not event.is_set():
            # "all" only where every future is to be waited for; it counts those pending.
            waiter.event = event = _TaskEvent(needs_all=hasattr(waiter, "num_pending_calls"))
        if isinstance(event, _TaskEvent):
            event.futures.append(self._future)
        super().append(waiter)


class _TaskEvent(threading.Event):
    """An event on which a task waits for sub-tasks."""

    def __init__(self, *, needs_all: bool) -> None:
        super().__init__()
        self.futures: list[TaskFuture[Any]] = []
        self._needs_all = needs_all

    def wait(self, timeout: float | None = None) -> bool:
        pending = [future for future in self.futures if not future.done()]
        if self.is_set() or not pending:
            return super().wait(timeout)
        connection = pending[0]._connection
        wait = TaskWait(connection, [future.task_id for future in pending], "all" if self._needs_all else "any")
        try:
            connection.flush()
            connection.read_at_once()
            is_set = super().wait(timeout)
            ended = [future.done() for future in pending]
            if is_set and (all(ended) if self._needs_all else any(ended)):
                # They ended, so the slot comes.
                connection.wait(wait.request.is_done, (wait.request,))
            return is_set
        finally:
            wait.end()
