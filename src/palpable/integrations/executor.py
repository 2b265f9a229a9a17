"""`concurrent.futures.Executor` on a Palpable server.

By the letter of its documentation, with these differences from `ProcessPoolExecutor`:

* A process that dies fails its own task, with `TaskCrashed` (a `BrokenProcessPool`), and nothing else: the pool goes
on.
* `cancel` of a future also ends a task that runs. `shutdown(cancel_futures=True)` leaves those that run alone.
* What tasks print is kept with the task (`future.logs()`), and does not appear on the terminal.
* Functions and arguments may be lambdas, closures, and of `__main__`. Tasks may submit tasks and wait for them.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from palpable._connection import questions
from palpable._connection.checks import check_number
from palpable._wire.messages import TaskReport, TaskRequest
from palpable._wire.payload import dumps_call, dumps_function, dumps_params, name_of
from palpable.units.client import Client
from palpable.units.task import new_task_id
from palpable.units.task_exceptions import PalpableError, RemoteTraceback
from palpable.units.task_future import TaskFuture

if TYPE_CHECKING:
    from palpable.servants.server import Server
    from palpable.units.task_calls import TaskCalls

T = TypeVar("T")

logger = logging.getLogger("concurrent.futures")

Isolation = Literal["task", "worker"]


class Executor(concurrent.futures.Executor):
    """Runs calls in the tasks of a server: its own, or that of a client.

    Args:
        max_workers: how many run at once; None: the cores this process may use. With `client`, the server's number
            holds.
        client: whose server to use, and with whose options. None: a private server, started at the first call and
            ended by `shutdown`.
        initializer: called in each process before its first call. If it fails, the executor is broken: all pending
            futures and all later calls raise `BrokenProcessPool`.
        initargs: its arguments.
        isolation: "worker": processes run many calls each, as in a pool. "task": each call has a process of its own.
        max_tasks_per_child: isolation "worker": a process is replaced after so many calls; None: never. Not with
            `client`.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range; the message names it.

    Example:
        >>> with Executor(max_workers=2) as executor:  # doctest: +SKIP
        ...     list(executor.map(pow, [2, 3], [10, 10]))
        [1024, 59049]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        client: Client | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        isolation: Isolation = "worker",
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is not None and isinstance(max_workers, int) and max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        check_number("max_workers", max_workers, least=1, most=4096, is_whole=True, may_be_none=True)
        check_number("max_tasks_per_child", max_tasks_per_child, least=1, is_whole=True, may_be_none=True)
        if client is not None and not isinstance(client, Client):
            raise TypeError(f"client must be a palpable Client, not {client!r}")
        if client is not None and (max_workers is not None or max_tasks_per_child is not None):
            raise ValueError("with client, max_workers and max_tasks_per_child are the server's; leave them out")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if isolation not in ("task", "worker"):
            raise ValueError(f"isolation must be 'task' or 'worker', not {isolation!r}")
        preparation = None if initializer is None else _Preparation(initializer, tuple(initargs))
        self._pool = _Pool(max_workers, client, preparation, isolation, max_tasks_per_child)
        # The pool outlives an executor that is dropped, until what was submitted has ended.
        self._finalizer = weakref.finalize(self, self._pool.close_soon)
        self._finalizer.atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Submit `fn(*args, **kwargs)`; return its future.

        Raises:
            RuntimeError: after `shutdown`, or when the interpreter exits.
            BrokenProcessPool: the initializer failed.
        """
        preparation = self._pool.preparation
        if preparation is None:
            key, data, name = dumps_function(fn)
            payload = dumps_call(args, kwargs)
        else:
            key, data, _ = dumps_function(_call_prepared)
            name = name_of(fn)
            payload = dumps_call((preparation, fn, args, kwargs), {})
        return self._pool.submit(TaskRequest(new_task_id(), "call", key, payload, name), data)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over `fn(*args)` for args in `zip(*iterables)`, in order; the calls run at once.

        Args:
            timeout: seconds until all must have been yielded; else `TimeoutError`, and the rest is cancelled.
            chunksize: so many calls travel and run together, and fail together.
            buffersize: read no more of the iterables than so many chunks ahead; None: read all of them now.
        """
        check_number("timeout", timeout, may_be_none=True)
        check_number("buffersize", buffersize, least=1, is_whole=True, may_be_none=True)
        if isinstance(chunksize, int) and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        check_number("chunksize", chunksize, least=1, is_whole=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            submitted: Iterator[TaskFuture[Any]] = (self.submit(fn, *args) for args in calls)
        else:
            submitted = self._submit_chunks(fn, calls, chunksize)
        futures = deque(submitted if buffersize is None else itertools.islice(submitted, buffersize))
        results = _results(futures, submitted, deadline)
        return results if chunksize == 1 else _flattened(results)

    def _submit_chunks(
        self, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[TaskFuture[Any]]:
        key, data, _ = dumps_function(_Starred(fn, self._pool.preparation))
        while chunk := list(itertools.islice(calls, chunksize)):
            request = TaskRequest(new_task_id(), "chunk", key, dumps_params(chunk), name_of(fn))
            yield self._pool.submit(request, data)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and end when those submitted have ended. Safe to call twice.

        Args:
            wait: until then. Otherwise it returns at once; the interpreter's exit waits all the same.
            cancel_futures: cancel what has not begun to run.
        """
        self._pool.shut()
        if cancel_futures:
            self._pool.cancel_waiting()
        if wait:
            self._pool.close()
        else:
            self._pool.close_soon()

    @property
    def _broken(self) -> str | bool:
        return self._pool.broken or False

    @property
    def _max_workers(self) -> int:
        """How many calls run at once. Dask asks for it by this name."""
        return self._pool.max_workers

    def __repr__(self) -> str:
        return f"<Executor on {self._pool.client or 'a private server'}>"


class _Preparation:
    """The initializer of one executor, on its way into task processes."""

    def __init__(self, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
        self._key = secrets.token_hex(8)
        self._initializer = initializer
        self._initargs = initargs

    def ensure(self) -> None:
        """Call the initializer, unless this process has.

        Raises:
            InitializerFailed: it raised.
        """
        if self._key in _prepared:
            return
        try:
            self._initializer(*self._initargs)
        except BaseException as error:
            logger.critical("Exception in initializer:", exc_info=True)
            raise InitializerFailed(f"{type(error).__name__}: {error}") from error
        _prepared.add(self._key)


_prepared: set[str] = set()
"""In a task process: the executors whose initializer has been called here."""


class InitializerFailed(PalpableError):
    """The initializer of an executor raised, in a task process."""


_FAILED_TYPES = (f"{InitializerFailed.__module__}.{InitializerFailed.__qualname__}", InitializerFailed.__qualname__)


def _call_prepared(preparation: _Preparation, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    preparation.ensure()
    return fn(*args, **kwargs)


class _Starred:
    """`fn`, called with its arguments as one tuple."""

    def __init__(self, fn: Callable[..., Any], preparation: _Preparation | None) -> None:
        self._fn = fn
        self._preparation = preparation

    def __call__(self, args: tuple[Any, ...]) -> Any:
        if self._preparation is not None:
            self._preparation.ensure()
        return self._fn(*args)


class _ExecutorFuture(TaskFuture[T]):
    """A future of an executor: fails when the initializer did, and has the cause that pools give."""

    _pool: _Pool

    def take(self, report: TaskReport) -> bool:
        broken = self._pool.broken_by(report)
        return super().take(report) if broken is None else self.fail(broken)

    def finish(self, report: TaskReport) -> None:
        broken = self._pool.broken_by(report)
        if broken is None:
            super().finish(report)
        else:
            self.finish_failed(broken)

    def _open(self) -> None:
        super()._open()
        error = self._exception
        if error is not None and type(error.__cause__) is RemoteTraceback:
            error.__cause__ = _RemoteTraceback(  # type: ignore[arg-type]
                f'\n"""\n{error.__cause__.text}"""'
            )


class _Pool:
    """Client, server and pending futures of one executor."""

    def __init__(
        self,
        max_workers: int | None,
        client: Client | None,
        preparation: _Preparation | None,
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
        self._futures: weakref.WeakSet[_ExecutorFuture[Any]] = weakref.WeakSet()
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

    def submit(self, request: TaskRequest, function: bytes) -> _ExecutorFuture[Any]:
        """Submit a task."""
        with self._lock:
            if self.broken:
                raise BrokenProcessPool(self.broken)
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _is_exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            calls = self._calls or self._start()
            connection = calls._get_connection()
            future: _ExecutorFuture[Any] = _ExecutorFuture(request.task_id, connection)
            future._pool = self
            self._futures.add(future)
            connection.submit(request, function, calls._options, future)
            return future

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
        self._calls = self.client.options(isolation=self._isolation)
        return self._calls

    # --- a failed initializer
    # -----------------------------------------------------------------------------------------

    def broken_by(self, report: TaskReport) -> BrokenProcessPool | None:
        """Return what a future with this report raises, if it says, or follows from, that the initializer failed."""
        if not self.broken and (self.preparation is None or report.error_type not in _FAILED_TYPES):
            return None
        if not self.broken:
            self.broken = f"A process initializer failed, the pool is not usable anymore: {report.error_message}"
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

    # --- the end
    # ------------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Accept no more calls."""
        with self._lock:
            self._is_shut = True

    def cancel_waiting(self) -> None:
        """Cancel what has not begun to run."""
        pending = [future for future in list(self._futures) if not future.done()]
        if not pending or self._calls is None:
            return
        try:
            connection = self._calls._get_connection()
            task_ids = [future.task_id for future in pending]
            running = {task.task_id for task in questions.list_tasks(connection, ["running"], len(task_ids), task_ids)}
            questions.cancel_futures(connection, [future for future in pending if future.task_id not in running])
        except PalpableError:
            pass  # the server is gone, and with it all of them

    def close(self) -> None:
        """Wait until all that was submitted has ended, then close what was opened."""
        for future in list(self._futures):
            if not future.done():
                concurrent.futures.wait([future])
        with self._lock:
            closer, self._is_shut = self._closer, True
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


def _results(
    futures: deque[TaskFuture[Any]], submitted: Iterator[TaskFuture[Any]], deadline: float | None
) -> Iterator[Any]:
    try:
        while futures:
            # No name holds the future or its result while it is out with the caller.
            yield _result_of(futures.popleft(), deadline)
            futures.extend(itertools.islice(submitted, 1))
    finally:
        for future in futures:
            future.cancel()


def _result_of(future: TaskFuture[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except BaseException:
        future.cancel()
        raise
    finally:
        del future


def _flattened(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


# --- the end of the interpreter
# ---------------------------------------------------------------------------------------

_open_pools: set[_Pool] = set()
_is_exiting = False


def _wait_for_all() -> None:
    """What was submitted is finished before the interpreter exits, as with the pools of the standard library."""
    global _is_exiting
    _is_exiting = True
    for pool in list(_open_pools):
        pool.close()


def _forget_all() -> None:
    _open_pools.clear()


# Not `atexit`: that comes after the last moment at which a thread can be started. The pools of the standard library
# use it.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)  # the servers and futures are the parent's
