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
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

from palpable._connection.checks import check_number
from palpable._wire.messages import TaskRequest
from palpable._wire.payload import dumps_call, dumps_function, dumps_params, name_of
from palpable.integrations.executor_initializer import Preparation, Prepared
from palpable.integrations.executor_pool import ExecutorFuture, ExecutorPool, Isolation
from palpable.units.client import Client
from palpable.units.task import new_task_id
from palpable.units.task_exceptions import NotPicklable

T = TypeVar("T")


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
            A function with options of its own (`@task`) keeps them, its isolation too.
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
        max_workers = check_number("max_workers", max_workers, least=1, most=4096, is_whole=True, may_be_none=True)
        max_tasks_per_child = check_number(
            "max_tasks_per_child", max_tasks_per_child, least=1, is_whole=True, may_be_none=True
        )
        if client is not None and not isinstance(client, Client):
            raise TypeError(f"client must be a palpable Client, not {client!r}")
        if client is not None and (max_workers is not None or max_tasks_per_child is not None):
            raise ValueError("with client, max_workers and max_tasks_per_child are the server's; leave them out")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if isolation not in ("task", "worker"):
            raise ValueError(f"isolation must be 'task' or 'worker', not {isolation!r}")
        preparation = None if initializer is None else Preparation(initializer, tuple(initargs))
        self._pool = ExecutorPool(max_workers, client, preparation, isolation, max_tasks_per_child)
        # The pool outlives an executor that is dropped, until what was submitted has ended.
        self._finalizer = weakref.finalize(self, self._pool.close_soon)
        self._finalizer.atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> ExecutorFuture[T]:
        """Submit `fn(*args, **kwargs)`; return its future. What can't be pickled fails the future.

        Raises:
            RuntimeError: after `shutdown`, or when the interpreter exits.
            BrokenProcessPool: the initializer failed.
        """
        try:
            key, data, name = dumps_function(self._prepared(fn))
            payload = dumps_call(args, kwargs)
        except NotPicklable as error:
            return self._pool.fail(new_task_id(), error)
        return self._pool.submit(TaskRequest(new_task_id(), "call", key, payload, name), data, fn)

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
            chunksize: so many calls travel and run together. What was done before one of them raised is yielded.
            buffersize: read no more of the iterables than so many chunks ahead; None: read all of them now.
        """
        check_number("timeout", timeout, may_be_none=True)
        buffersize = check_number("buffersize", buffersize, least=1, is_whole=True, may_be_none=True)
        if isinstance(chunksize, int) and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        chunksize = check_number("chunksize", chunksize, least=1, is_whole=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            submitted: Iterator[ExecutorFuture[Any]] = (self.submit(fn, *args) for args in calls)
        else:
            submitted = self._submit_chunks(fn, calls, chunksize)
        futures = deque(submitted if buffersize is None else itertools.islice(submitted, buffersize))
        if chunksize == 1:
            return _results(self._pool, futures, submitted, lambda future: _result_of(future, deadline))
        return _flattened(_results(self._pool, futures, submitted, lambda future: _chunk_of(future, deadline)))

    def _prepared(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        preparation = self._pool.preparation
        return fn if preparation is None else Prepared(fn, preparation)

    def _submit_chunks(
        self, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[ExecutorFuture[Any]]:
        key, data, _ = dumps_function(_Starred(self._prepared(fn)))
        starts = itertools.count(step=chunksize)
        while chunk := list(itertools.islice(calls, chunksize)):
            request = TaskRequest(new_task_id(), "chunk", key, dumps_params(chunk, next(starts)), name_of(fn))
            yield self._pool.submit(request, data, fn)

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


class _Starred:
    """`fn`, called with its arguments as one tuple."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return self._fn(*args)


def _results(
    pool: ExecutorPool,
    futures: deque[ExecutorFuture[Any]],
    submitted: Iterator[ExecutorFuture[Any]],
    take: Callable[[ExecutorFuture[Any]], Any],
) -> Iterator[Any]:
    try:
        while futures:
            # No name holds the future or its result while it is out with the caller.
            yield take(futures.popleft())
            futures.extend(itertools.islice(submitted, 1))
    finally:
        pool.cancel(futures)


def _result_of(future: ExecutorFuture[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except BaseException:
        future.cancel()
        raise
    finally:
        del future


def _chunk_of(future: ExecutorFuture[Any], deadline: float | None) -> tuple[list[Any], BaseException | None]:
    """Return the results of a chunk; if it failed, those before the error, and that."""
    try:
        return _result_of(future, deadline), None
    except BaseException as error:
        return future.results_before, error


def _flattened(chunks: Iterator[tuple[list[Any], BaseException | None]]) -> Iterator[Any]:
    with closing(chunks):  # type: ignore[type-var]
        for chunk, error in chunks:
            chunk.reverse()
            while chunk:
                yield chunk.pop()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # the traceback holds this frame
