"""The future of one task: a `concurrent.futures.Future` that costs a tenth of one until somebody needs all of it.

A `Future` makes a condition when it is made, which is most of its cost. Here the condition is made when it is first
asked for: by `wait`, `as_completed` or a callback. From then on the future is completed under it, by the background
thread of the connection, as an executor would, or by who asks for its result and is faster. Before that nobody can
hold the condition, and completing it is two assignments.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, TimeoutError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from palpable._connection import questions
from palpable._connection.background import is_for_caller
from palpable._connection.task_waits import wait_for_tasks
from palpable._wire.messages import Report, TaskReport
from palpable._wire.payload import exception_of, result_of
from palpable.units.task_exceptions import PalpableError

if TYPE_CHECKING:
    from palpable._connection.connection import Connection
    from palpable._connection.waiting import Blocked

T = TypeVar("T")

_FINAL = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class TaskFuture(Future[T]):
    """What a submitted task will return. Made by `submit`; works with everything that takes a `Future`.

    Other than a plain Future, `cancel` also ends a task that runs. `concurrent.futures.wait`, `as_completed`,
    callbacks and `asyncio.wrap_future` work. Waiting for one inside a task frees the task's slot.

    Attributes:
        task_id: which task; `Client.logs`, `Client.cancel` and `Client.result` take it too.
    """

    task_id: str
    watchers: tuple[Blocked, ...] = ()
    # What `Future.__init__` sets. As attributes of the class they cost nothing until they change.
    _state: str = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _report: Report | None = None
    _made_condition: threading.Condition | None = None
    _has_arrived = False
    """Whether it is known how the task ended. `_state` says so too, a moment later if others wait for it."""
    _is_cancelled = False

    def __init__(self, task_id: str, connection: Connection) -> None:
        self.task_id = task_id
        self._connection = connection

    # --- what Future keeps in attributes, made when needed ---------------------------------------------------------

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition = self._made_condition
        if condition is None:
            made = threading.Condition()
            condition = self.__dict__.setdefault("_made_condition", made)
            # Who against whom: a reader in `take`, which found no condition and is about to set the state, against us,
            # who hold one and are about to look at the state under it, twice perhaps. The reader first sets
            # `_has_arrived` and then looks for a condition; we made the condition and look now. So one sees the other;
            # and if it is us, the state is set before anybody can hold the condition.
            if condition is made and self._has_arrived and self._state not in _FINAL:
                self._state = CANCELLED_AND_NOTIFIED if self._is_cancelled else FINISHED
            if self._state not in _FINAL:
                # Whoever asks for it will wait by other means than `result`: the background thread has to read for
                # them.
                self._connection.read_at_once()
        return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        waiters: list[Any] = self.__dict__.setdefault("_all_waiters", _new_waiters(self))
        return waiters

    @property
    def _done_callbacks(self) -> list[Any]:
        callbacks: list[Any] = self.__dict__.setdefault("_all_callbacks", [])
        return callbacks

    # --- completing: called by the connection ----------------------------------------------------------------------

    def take(self, report: Report) -> bool:
        if not self._has_arrived:
            self._report = report
            if report.outcome == "cancelled":
                self._is_cancelled = True
            self._has_arrived = True
        if self._made_condition is None and not self.watchers:
            # As below, written out: this is done for every task.
            if self._state not in _FINAL:
                self._state = CANCELLED_AND_NOTIFIED if self._is_cancelled else FINISHED
            if not self.watchers:  # who came meanwhile looks by itself: see `waiting`
                return True
        return self._arrive()

    def fail(self, error: Exception) -> bool:
        if not self._has_arrived:
            self._exception = error
            self._has_arrived = True
        return self._arrive()

    def _arrive(self) -> bool:
        """Set the state, if nobody holds the condition; return whether that was so."""
        is_completed = self._made_condition is None
        if is_completed and self._state not in _FINAL:
            self._state = CANCELLED_AND_NOTIFIED if self._is_cancelled else FINISHED
        for blocked in self.watchers:
            if blocked.is_done():
                blocked.wake()
        return is_completed

    def finish(self, report: Report) -> None:
        self._complete()
        # Taken out, so that they are called once, also if the report was delivered twice.
        for callback in self.__dict__.pop("_all_callbacks", ()):
            try:
                callback(self)
            except BaseException as error:
                if is_for_caller(error):
                    raise
                LOGGER.exception("exception calling callback for %r", self)

    def finish_failed(self, error: Exception) -> None:
        self.finish(TaskReport(self.task_id, ""))

    def _complete(self) -> None:
        """Set the state under the condition, and tell those that sleep on it."""
        with self._condition:
            if self._state in _FINAL:
                return
            self._state = CANCELLED_AND_NOTIFIED if self._is_cancelled else FINISHED
            is_success = self._exception is None and (self._report is None or self._report.outcome == "succeeded")
            for waiter in self._waiters:
                if self._is_cancelled:
                    waiter.add_cancelled(self)
                elif is_success:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()

    def _settle(self) -> None:
        """After it has arrived: make sure that others see it too, e.g. `concurrent.futures.wait(timeout=0)`."""
        if self._state in _FINAL:
            return
        if threading.current_thread() is not threading.main_thread():
            self._complete()
            return
        with self._condition:
            if not self._waiters:
                self._state = CANCELLED_AND_NOTIFIED if self._is_cancelled else FINISHED
                self._condition.notify_all()  # of us: a signal handler may be here, while we sleep below
                return
        # Not here: a Ctrl-C half way through would leave some of those that wait without a word. Nor do we wait for the
        # background thread: it may be in a callback, and that may wait for what we do next.
        try:
            threading.Thread(target=self._complete, name="palpable-completing", daemon=True).start()
        except RuntimeError:  # the interpreter exits
            self._complete()
        with self._condition:
            self._condition.wait_for(lambda: self._state in _FINAL)

    # --- asking ----------------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the task has ended, in any way."""
        return self._has_arrived or self._state in _FINAL

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._is_cancelled or self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether the task runs at this moment. Asks the server; False if it can't be asked."""
        if self.done():
            return False
        if self._state == RUNNING:
            return True
        try:
            return self.state == "running"
        except PalpableError:
            return False

    @property
    def state(self) -> str:
        """ "ready", "running", "succeeded", "failed", "cancelled" and so on, as the server sees it now.

        Raises:
            ServerUnreachable: it can't be asked.
        """
        if not self.done():
            info = questions.task_info(self._connection, self.task_id)
            if info is not None:
                return info.state
        return self._end() or "ready"  # it ended while we asked, or is not sent yet

    @property
    def progress(self) -> tuple[float, float, str] | None:
        """(done, total, note) as the task last said by `Messenger.progress`; None if it said nothing.

        Raises:
            ServerUnreachable: the server can't be asked.
        """
        info = questions.task_info(self._connection, self.task_id)
        return None if info is None else info.progress

    @overload
    def logs(self, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(self, follow: Literal[True]) -> Iterator[str]: ...
    @overload
    def logs(self, follow: bool) -> str | Iterator[str]: ...
    def logs(self, follow: bool = False) -> str | Iterator[str]:
        """Return what the task printed; with `follow` an iterator that goes on until it has ended."""
        if follow:
            return questions.follow_logs(self._connection, self.task_id)
        return questions.read_logs(self._connection, self.task_id)

    def result(self, timeout: float | None = None) -> T:
        """Wait, and return what the task returned.

        Args:
            timeout: in seconds; None: no limit.

        Raises:
            TimeoutError: it has not ended in that time.
            TaskCancelled: it was cancelled (a `concurrent.futures.CancelledError`).
            Exception: what the task raised, as its own type; or a `TaskDidNotFinish`, e.g. `TaskCrashed`.
        """
        if self._state not in _FINAL:
            self._wait(timeout)
        if self._report is not None:
            self._open()
        error = self._exception
        if error is None:
            if self._state != FINISHED:
                return super().result(0)  # cancelled by other means than the server's: raises
            return self._result  # type: ignore[return-value]
        try:
            raise error
        finally:
            # The traceback holds this frame, and the frame must not hold the error in turn.
            del self, error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait, and return what the task raised; None if it returned. `timeout` and other errors as for `result`."""
        if self._state not in _FINAL:
            self._wait(timeout)
        if self._report is not None:
            self._open()
        if self._state != FINISHED:
            self.result(0)  # raises
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        self._connection.check_process()
        if not wait_for_tasks(self._connection, self.done, (self,), lambda: (self.task_id,), timeout):
            raise TimeoutError(f"task {self.task_id} has not ended within {timeout:g} s")
        self._settle()

    def _open(self) -> None:
        """Unpickle what arrived: in the thread that wants it, not in the one that happened to read it."""
        report = self._report
        if report is None:
            return  # another thread was faster
        value: Any = None
        error: BaseException | None = None
        if report.outcome == "succeeded":
            try:
                value = result_of(report)
            except PalpableError as not_unpicklable:
                error = not_unpicklable
        else:
            error = exception_of(report)
        # Two threads may have opened it, or a signal handler meanwhile. All hand out the object that was entered first:
        # no call between the look and the last change, so nobody comes between.
        if self._report is not None:
            self._result, self._exception = value, error
            self._report = None

    # --- ending ----------------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """End the task, queued or running; return whether it is cancelled now. False: it had ended before.

        Raises nothing: if the server can't be reached, the answer is False.
        """
        if not self.done():
            try:
                questions.cancel_futures(self._connection, [self])
            except PalpableError:
                return self.cancelled()
            if self.done():
                self._settle()
        return self.cancelled()

    def _end(self) -> str:
        """Return how it ended, in a word; "" if it has not."""
        if not self.done():
            return ""
        if self.cancelled():
            return "cancelled"
        is_failed = self._exception is not None or (self._report is not None and self._report.outcome != "succeeded")
        return "failed" if is_failed else "succeeded"

    def __repr__(self) -> str:
        return f"<TaskFuture {self.task_id} {self._end() or 'pending'}>"


def _make_room() -> None:
    """Have an instance that sets all attributes be the first of its class.

    CPython (3.11 to 3.13 at least) keeps attributes in an array, and makes no `__dict__`, as long as they are among
    those that the first thirty instances had. A loop of submits makes thousands before any has a result: each would
    have a dict of its own from then on, 200 bytes more and one more object for the garbage collector.
    """
    first: TaskFuture[Any] = TaskFuture.__new__(TaskFuture)
    first.__init__("", None)  # type: ignore[misc]
    first._report, first._has_arrived, first._state = None, True, FINISHED
    first._result, first._exception = None, None


_make_room()


def _new_waiters(future: TaskFuture[Any]) -> list[Any]:
    if not future._connection.is_inside_task:
        return []
    from palpable._connection.future_waits import WaiterList

    return WaiterList(future)
