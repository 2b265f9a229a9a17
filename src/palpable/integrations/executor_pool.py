"""What stands behind an executor: its server, its client, the futures that are pending, and its initializer.

It outlives an executor that was dropped or shut without waiting, until what was submitted has ended.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from palpable._connection import questions
from palpable._wire.chunk_failure import results_before
from palpable._wire.messages import Report, TaskRequest
from palpable.integrations.executor_initializer import FAILED_TYPES, Preparation
from palpable.units.task_exceptions import PalpableError, RemoteTraceback
from palpable.units.task_future import TaskFuture

if TYPE_CHECKING:
    from palpable.servants.server import Server
    from palpable.units.client import Client
    from palpable.units.task_calls import TaskCalls

T = TypeVar("T")

logger = logging.getLogger("concurrent.futures")

Isolation = Literal["task", "worker"]

_make_remote_traceback: Any = concurrent.futures.process._RemoteTraceback  # what the pools of the library raise from


class ExecutorFuture(TaskFuture[T]):
    """A future of an executor: fails when the initializer did, and has the cause that pools give."""

    _pool: ExecutorPool
    results_before: list[Any] = []  # noqa: RUF012 - replaced as a whole, never changed
    """Of a chunk that failed: what the calls before the one that raised had returned."""

    def take(self, report: Report) -> bool:
        broken = self._pool.broken_by(report)
        return super().take(report) if broken is None else self.fail(broken)

    def finish(self, report: Report) -> None:
        broken = self._pool.broken_by(report)
        if broken is None:
            super().finish(report)
        else:
            self.finish_failed(broken)

    def _open(self) -> None:
        report = self._report
        if report is not None and (before := results_before(report)):
            self.results_before = before
        super()._open()
        error = self._exception
        if error is not None and type(error.__cause__) is RemoteTraceback:
            error.__cause__ = _make_remote_traceback(f'\n"""\n{error.__cause__.text}"""')


class ExecutorPool:
    """Client, server and pending futures of one executor."""

    def __init__(
        self,
        max_workers: int | None,
        client: Client | None,
        preparation: Preparation | None,
        isolation: Isolation,
        max_tasks_per_child: int | None,
    ) -> None:
        self.preparation = preparation
        self.client = client
        self.broken = ""
        self._max_workers = max_workers
        self._owns_server = client is None
        self._isolation: Isolation = isolation
        self._max_tasks_per_child = max_tasks_per_child
        self._server: Server | None = None
        self._calls: TaskCalls | None = None
        self._lock = threading.RLock()
        self._is_shut = False
        self._is_closed = False
        self._closer: threading.Thread | None = None
        self._futures: weakref.WeakSet[ExecutorFuture[Any]] = weakref.WeakSet()
        _open_pools.add(self)

    @property
    def max_workers(self) -> int:
        """How many calls run at once."""
        if self._max_workers is None:
            if self.client is not None and not self._owns_server:
                self._max_workers = int(self.client._get_connection().server_info().get("num_workers") or 1)
            else:
                from palpable.servants.settings import usable_cores

                self._max_workers = usable_cores()
        return self._max_workers

    def submit(self, request: TaskRequest, data: bytes, function: Callable[..., Any]) -> ExecutorFuture[Any]:
        """Submit a task.

        Args:
            data: the pickled function that `request` names.
            function: the one that the user gave, whose options count.
        """
        with self._lock:
            calls, future = self._make_future(request.task_id)
            self._futures.add(future)
            future._connection.submit(request, data, calls._levels.of(function), future)
            return future

    def fail(self, task_id: str, error: Exception) -> ExecutorFuture[Any]:
        """Return the future of a call that can't be submitted, because of `error`."""
        with self._lock:
            _, future = self._make_future(task_id)
        future.fail(error)
        return future

    def _make_future(self, task_id: str) -> tuple[TaskCalls, ExecutorFuture[Any]]:
        """The caller holds the lock."""
        if self.broken:
            raise BrokenProcessPool(self.broken)
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        calls = self._calls or self._start()
        future: ExecutorFuture[Any] = ExecutorFuture(task_id, calls._get_connection())
        future._pool = self
        return calls, future

    def _start(self) -> TaskCalls:
        if self.client is None:
            from palpable.servants.server import Server

            self._server = Server(
                num_workers=self.max_workers,
                task_timeout_seconds=None,
                isolation=self._isolation,
                max_tasks_per_process=self._max_tasks_per_child,
            ).start()
            self.client = self._server.client()
        # As if the client had it: a function with an isolation of its own keeps that.
        calls = self.client.options()
        calls._levels = calls._levels.with_default({"isolation": self._isolation})
        self._calls = calls
        return calls

    # --- a failed initializer -------------------------------------------------------------------------------------

    def broken_by(self, report: Report) -> BrokenProcessPool | None:
        """Return what a future with this report raises, if it says, or follows from, that the initializer failed."""
        if not self.broken and (self.preparation is None or report.error_type not in FAILED_TYPES):
            return None
        if not self.broken:
            self.broken = f"A process initializer failed, the pool is not usable anymore: {report.error_message}"
            logger.critical("Exception in initializer:\n%s", report.traceback)
            threading.Thread(target=self._end_all, name="palpable-executor-broken", daemon=True).start()
        elif report.outcome == "succeeded":
            return None
        return BrokenProcessPool(self.broken)

    def _end_all(self) -> None:
        try:
            for future in list(self._futures):
                future.cancel()
        except PalpableError:
            pass  # the server is gone, and with it all of them

    # --- the end --------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Accept no more calls."""
        with self._lock:
            self._is_shut = True

    def cancel(self, futures: Iterable[TaskFuture[Any]]) -> None:
        """Cancel these, running or not, with one question to the server. Never raises."""
        if self._calls is not None and (pending := [future for future in futures if not future.done()]):
            with suppress(PalpableError):  # the server is gone, and with it all of them
                questions.cancel_futures(self._calls._get_connection(), pending)

    def cancel_waiting(self) -> None:
        """Cancel what has not begun to run."""
        pending = [future for future in list(self._futures) if not future.done()]
        if not pending or self._calls is None:
            return
        try:
            questions.cancel_futures(self._calls._get_connection(), pending, spares_running=True)
        except PalpableError:
            pass  # the server is gone, and with it all of them

    def close(self) -> None:
        """Wait until all that was submitted has ended, then close what was opened."""
        self.shut()  # first: what another thread is just submitting is among the futures then
        for future in list(self._futures):
            if not future.done():
                concurrent.futures.wait([future])
        with self._lock:
            closer = self._closer
            if self._is_closed:
                return
            if closer is None or closer is threading.current_thread():
                self._is_closed = True
                self._release()
                return
        closer.join()

    def close_soon(self) -> None:
        """As `close`, on a thread of its own."""
        with self._lock:
            self._is_shut = True
            if self._is_closed or self._closer is not None:
                return
            if self._calls is None or (not self._owns_server and all(future.done() for future in self._futures)):
                self._is_closed = True
                self._release()
                return
            self._closer = threading.Thread(target=self.close, name="palpable-executor-closer", daemon=True)
            try:
                self._closer.start()
            except RuntimeError:  # the interpreter is exiting; `_wait_for_all` has been here, or will be
                self._closer = None

    def _release(self) -> None:
        _open_pools.discard(self)
        if self._owns_server and self.client is not None:
            self.client.close()
        if self._server is not None:
            self._server.stop()
            self._server.join()
            self._server.close()


# --- the end of the interpreter -----------------------------------------------------------------------------------

_open_pools: set[ExecutorPool] = set()
_is_exiting = False


def _wait_for_all() -> None:
    """What was submitted is finished before the interpreter exits, as with the pools of the standard library."""
    global _is_exiting
    _is_exiting = True
    for pool in list(_open_pools):
        pool.close()


def _forget_all() -> None:
    for pool in list(_open_pools):
        pool._lock = threading.RLock()  # another thread of the process that forked this one may have held it
    _open_pools.clear()


# Not `atexit`: that comes after the last moment at which a thread can be started. The pools of the standard library
# use it.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)  # the servers and futures are the parent's
