"""The calls that run functions in tasks, awaited: the same for a client and for one with options."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from palpable._connection.async_connection import AsyncConnection
from palpable._connection.async_lazy_map import async_lazy_map
from palpable._connection.bulk import automatic_chunksize, isolation_of, workers_of
from palpable._connection.checks import check_number
from palpable._wire.messages import (
    QueryResults,
    Report,
    TaskOptions,
    TaskRequest,
)
from palpable._wire.payload import (
    dumps_call,
    dumps_function,
    dumps_procedure,
    name_of,
)
from palpable.units.async_chunks import cancel_tasks, run_chunks
from palpable.units.async_task_future import AsyncTaskFuture, opened
from palpable.units.option_levels import OptionLevels, check_has_no_key, task_id_for_key
from palpable.units.task import Task, new_task_id
from palpable.units.task_calls import bar_for, check_callable, check_chunksize, count_of
from palpable.units.task_exceptions import UnknownTask
from palpable.units.task_response import TaskResponse
from palpable.units.task_result import TaskResult

if TYPE_CHECKING:
    from palpable.procedures.procedure import Procedure

T = TypeVar("T")


class SharedConnection:
    """What a client and its views have in common."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: AsyncConnection | None = None


class AsyncCalls:
    """What a client and a client with options share."""

    _levels: OptionLevels
    _shared: SharedConnection

    async def _get_connection(self) -> AsyncConnection:
        """Return the connection, made if need be."""
        raise NotImplementedError

    async def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> AsyncTaskFuture[T]:
        """Submit `function(*args, **kwargs)` as a task; return what to await for its result. As `Client.submit`."""
        pickled = dumps_function(function)
        payload = dumps_call(args, kwargs)
        connection = self._shared.connection
        if connection is None or not connection.is_usable:
            connection = await self._get_connection()
        if connection.is_full:
            await connection.drain()
        options = self._levels.of(function)
        request = TaskRequest(_new_task_id(options), "call", pickled.key, payload, pickled.name)
        return AsyncTaskFuture(request.task_id, connection, connection.submit(request, pickled.data, options))

    async def run(self, function: Callable[[Any], T], params: Any) -> T:
        """Return `function(params)`, called in a task; raises what it raises.

        If the call is cancelled, the task goes on, unless its option `ends_with_client` says that nobody wants it then.
        """
        check_callable(function)
        pickled = dumps_function(function)
        payload = dumps_call((params,), {})
        connection = self._shared.connection
        if connection is None or not connection.is_usable:
            connection = await self._get_connection()
        if connection.is_full:
            await connection.drain()
        options = self._levels.of(function)
        request = TaskRequest(_new_task_id(options), "call", pickled.key, payload, pickled.name)
        report = connection.submit(request, pickled.data, options)
        try:
            if connection.is_inside_task:
                await connection.wait_for_tasks([report], lambda: [request.task_id])
            value: T = opened(await report)
        except asyncio.CancelledError:
            report.cancel()
            if options.ends_with_client and not options.idempotency_key:
                cancel_tasks(connection, [request.task_id])
            raise
        return value

    async def map(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any] | AsyncIterable[Any],
        *,
        chunksize: int | Literal["auto"] = "auto",
        progress: bool = False,
    ) -> list[T]:
        """Return `[function(param) for param in params]`, each called in a task. As `Client.map`.

        The first failure is raised, and the rest is cancelled; so it is if the call is cancelled.

        Args:
            params: may be an asynchronous iterable; all of it is read first.
        """
        check_callable(function)
        chunksize = check_chunksize(chunksize)
        options = self._levels.of(function)
        check_has_no_key(options)
        listed = [param async for param in params] if isinstance(params, AsyncIterable) else list(params)
        if not listed:
            return []
        pickled = dumps_function(function)
        connection = await self._get_connection()
        is_single = chunksize == "auto" and isolation_of(connection, options) == "task"
        size = 1 if is_single else chunksize
        with bar_for(progress, function, len(listed)) as on_progress:
            if not isinstance(size, int):
                size = automatic_chunksize(len(listed), workers_of(connection), is_watched=on_progress is not None)
            chunks = [listed[start : start + size] for start in range(0, len(listed), size)]
            futures = await run_chunks(connection, pickled, chunks, options, is_single=is_single, report=on_progress)
        values: list[T] = []
        for future in futures:
            value = opened(future._report.result())
            values.append(value) if is_single else values.extend(value)
        return values

    def imap(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
        progress: bool = False,
    ) -> AsyncGenerator[T, None]:
        """Yield `function(param)` for each of `params`, in order, as they come: `async for`. As `Client.imap`.

        Args:
            params: may be endless, and may be an asynchronous iterable.
        """
        return self._imap(function, params, window, chunksize, progress, is_ordered=True)

    def imap_unordered(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
        progress: bool = False,
    ) -> AsyncGenerator[T, None]:
        """As `imap`, but yield each result as soon as it is there, in any order."""
        return self._imap(function, params, window, chunksize, progress, is_ordered=False)

    def _imap(
        self, function: Any, params: Any, window: Any, chunksize: Any, progress: bool, *, is_ordered: bool
    ) -> AsyncGenerator[Any, None]:
        check_callable(function)
        window = check_number("window", window, least=1, is_whole=True, may_be_none=True)
        chunksize = check_chunksize(chunksize)
        options = self._levels.of(function)
        check_has_no_key(options)
        source = aiter(params) if isinstance(params, AsyncIterable) else iter(params)  # checked at once

        async def results() -> AsyncGenerator[Any, None]:
            values = async_lazy_map(
                await self._get_connection(),
                function,
                source,
                options,
                new_task_id,
                window=window,
                chunksize=chunksize,
                is_ordered=is_ordered,
            )
            async with aclosing(values):
                async for value in values:
                    yield value

        async def counted() -> AsyncGenerator[Any, None]:
            with bar_for(True, function, total) as on_progress:
                count = 0
                async with aclosing(results()) as values:
                    async for value in values:
                        count += 1
                        if on_progress is not None:
                            on_progress(count)
                        yield value

        total = count_of(params) if progress else None
        return counted() if progress else results()

    async def run_procedure(self, procedure: Procedure, waiting_seconds: float | None = 1) -> TaskResult:
        """Run `procedure.run(messenger)` in a task; return its result, or what there is after `waiting_seconds`.

        As `Client.run_procedure`.
        """
        check_number("waiting_seconds", waiting_seconds, may_be_none=True)
        seconds = -1.0 if waiting_seconds is None or waiting_seconds < 0 else min(float(waiting_seconds), 1e9)
        task = Task(procedure)
        payload = dumps_procedure(procedure)
        connection, options = await self._get_connection(), self._levels.plain
        if options.idempotency_key:
            task.task_id = task_id_for_key(options.idempotency_key)
        request = TaskRequest(task.task_id, "procedure", "", payload, name_of(type(procedure)))
        connection.submit(request, b"", options, is_kept=True, needs_exit=True).cancel()
        if seconds == 0:
            return TaskResult(task.task_id, None, None)
        report = await query_one(connection, task.task_id, seconds, take=True)
        if report is None:
            raise UnknownTask(f"the server has dropped task {task.task_id} at once", task_id=task.task_id)
        return TaskResult.from_report(report)

    async def ajax_run_procedure(self, procedure: Procedure, waiting_seconds: float | None = 1) -> TaskResponse:
        """As `run_procedure`, as a dict for a web view. Never raises: an error is a response too."""
        try:
            result = await self.run_procedure(procedure, waiting_seconds)
            return TaskResponse.from_result(result.task_id, result)
        except Exception as error:
            return TaskResponse.from_error(None, error)


async def query_one(connection: AsyncConnection, task_id: str, wait_seconds: float, *, take: bool) -> Report | None:
    """Return what there is of one task, after at most `wait_seconds` (below 0: when it has ended); None: unknown."""
    answer = await connection.answer_to(
        lambda request_id: QueryResults(request_id=request_id, task_ids=[task_id], wait_seconds=wait_seconds, take=take)
    )
    report: Report | None = answer.reports[0]
    return report


def _new_task_id(options: TaskOptions) -> str:
    return task_id_for_key(options.idempotency_key) if options.idempotency_key else new_task_id()
