"""A client for programs that run on an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

from msgspec.structs import replace

from palpable._connection import address as addresses
from palpable._connection.async_connection import AsyncConnection
from palpable._connection.async_lazy_map import async_lazy_map
from palpable._connection.async_link import AsyncLink, open_link
from palpable._connection.bulk import automatic_chunksize, isolation_of, workers_of
from palpable._connection.checks import check_number, checked_names, checked_task_id, checked_task_ids
from palpable._connection.dialing import check_tls, resolve_again
from palpable._connection.questions import PAGE_TASKS
from palpable._connection.reconnecting import delays, seconds_to_try
from palpable._connection.refusals import unknown_task
from palpable._wire.handshake import checked_authkey
from palpable._wire.messages import (
    CancelTasks,
    DrainServer,
    GetStatus,
    ListTasks,
    PurgeTasks,
    QueryResults,
    QuitServer,
    RetryTasks,
    TaskInfo,
    TaskOptions,
    TaskReport,
    TaskRequest,
)
from palpable._wire.payload import (
    dumps_call,
    dumps_function,
    dumps_procedure,
    name_of,
)
from palpable.units.async_chunks import cancel_tasks, run_chunks
from palpable.units.async_task_future import AsyncTaskFuture, log_pieces, opened
from palpable.units.option_levels import OptionLevels, check_has_no_key, client_levels, task_id_for_key
from palpable.units.task import Task, new_task_id
from palpable.units.task_calls import bar_for, check_callable, check_chunksize, count_of
from palpable.units.task_exceptions import ServerUnreachable, UnknownTask
from palpable.units.task_options import CallOptionArguments, OptionArguments, takes_options
from palpable.units.task_response import TaskResponse
from palpable.units.task_result import TaskResult

if TYPE_CHECKING:
    import ssl

    from palpable.procedures.procedure import Procedure

T = TypeVar("T")


class _Shared:
    """What a client and its views have in common."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: AsyncConnection | None = None


class _AsyncCalls:
    """What a client and a client with options share."""

    _levels: OptionLevels
    _shared: _Shared

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
        report = await _query(connection, task.task_id, seconds, take=True)
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


class AsyncClient(_AsyncCalls):
    """`Client`, awaited. Uses no thread. Belongs to the loop it is used in; when that has ended, to the next.

    The parameters are those of `Client`. `async with AsyncClient(...) as client:` closes it at the end.

    Example:
        >>> async def main():  # doctest: +SKIP
        ...     async with AsyncClient(("127.0.0.1", 8089), "AF_INET", b"key") as client:
        ...         return await client.run(abs, -3)
    """

    @takes_options
    def __init__(
        self,
        address: tuple[str, int] | str | os.PathLike[str] | None = None,
        family: str | None = None,
        authkey: bytes | None = None,
        *,
        tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
        reconnect_seconds: float | None = None,
        **options: Unpack[OptionArguments],
    ) -> None:
        self._address = None if address is None else addresses.make_address(address, family)
        self._family = family
        self._authkey = None if authkey is None else checked_authkey(authkey)
        check_tls(self._address or addresses.Address(host="any"), tls)
        self._tls = tls
        self._levels = client_levels(options)
        check_number("reconnect_seconds", reconnect_seconds, least=0, may_be_none=True)
        self._reconnect_seconds = reconnect_seconds
        self._shared = _Shared()
        self._connecting: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        where = "the default server" if self._address is None else self._address.url
        return f"<{type(self).__qualname__} of {where}>"

    async def _get_connection(self) -> AsyncConnection:
        self._check_open()
        connection = self._shared.connection
        if connection is not None and connection.is_usable:
            return connection
        loop = asyncio.get_running_loop()
        if self._shared.connection is not None:
            self._shared.connection.check_loop()
        if self._connecting is None or self._connecting[0] is not loop:  # a lock belongs to a loop
            self._connecting = loop, asyncio.Lock()
        async with self._connecting[1]:
            self._check_open()  # it may have been closed while we waited for our turn
            if self._shared.connection is None or not self._shared.connection.is_usable:
                connection = await self._dial(self._shared.connection)
                if self._is_closed:  # meanwhile
                    await connection.close()
                self._check_open()
                self._shared.connection = connection
            return self._shared.connection

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServerUnreachable("this client is closed; make a new one")

    async def _dial(self, last: AsyncConnection | None) -> AsyncConnection:
        given = (self._address, self._family, self._authkey)

        async def dial_again() -> AsyncLink:
            address, authkey, trusted = resolve_again(*given, self._tls)
            return await open_link(address, authkey, trusted)

        async def dial_once() -> AsyncConnection:
            address, authkey = addresses.resolve(*given)
            link = await open_link(address, authkey, check_tls(address, self._tls))
            # Others may be about to use the last one, so it is to go on, if it can.
            if last is not None and last.resume(link, is_new=True):
                return last
            if last is not None:
                last.break_off("another took its place")
            return AsyncConnection(link, address, dial_again, self._reconnect_seconds)

        if last is None or last.is_inside_task:
            return await dial_once()
        # A durable server may be about to come back.
        seconds = seconds_to_try(self._reconnect_seconds, last.info)
        until, waits = monotonic() + seconds, delays()
        while True:
            try:
                return await dial_once()
            except ServerUnreachable:
                wait_seconds = next(waits)
                if self._is_closed or monotonic() + wait_seconds > until:
                    raise
            await asyncio.sleep(wait_seconds)

    async def close(self) -> None:
        """Close the connection; the client can't be used any more. Safe to call twice."""
        self._is_closed = True
        if self._shared.connection is not None and self._shared.connection.is_usable:
            await self._shared.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @takes_options
    def options(self, **options: Unpack[CallOptionArguments]) -> AsyncClientView:
        """Return a view of this client whose calls use these options. As `Client.options`."""
        return AsyncClientView(self, self._levels.nearer(options))

    async def query_result(self, task_id: str, *, keep: bool = False) -> TaskResult | None:
        """Return how a task stands, at once. As `Client.query_result`."""
        task_id = checked_task_id(task_id)
        report = await _query(await self._get_connection(), task_id, 0.0, take=not keep)
        return None if report is None else TaskResult.from_report(report)

    async def ajax_query_result(self, task_id: str) -> TaskResponse:
        """As `query_result`, as a dict for a web view. Never raises: an error is a response too."""
        try:
            return TaskResponse.from_result(task_id, await self.query_result(task_id))
        except Exception as error:
            return TaskResponse.from_error(task_id, error)

    async def result(self, task_id: str, timeout_seconds: float | None = None) -> Any:
        """Wait for a task, and return what it returned; raises what it raised. As `Client.result`."""
        task_id = checked_task_id(task_id)
        check_number("timeout_seconds", timeout_seconds, least=0, may_be_none=True)
        wait_seconds = -1.0 if timeout_seconds is None else float(timeout_seconds)
        report = await _query(await self._get_connection(), task_id, wait_seconds, take=False)
        if report is None:
            raise unknown_task(task_id)
        if not report.outcome:
            raise TimeoutError(f"task {task_id} has not ended within {timeout_seconds:g} s")
        return opened(report)

    async def cancel(self, task_id: str) -> bool:
        """End a task, queued or running; return whether that was done. False: it had ended, or is not known."""
        task_ids = [checked_task_id(task_id)]
        connection = await self._get_connection()
        answer = await connection.answer_to(lambda request_id: CancelTasks(request_id=request_id, task_ids=task_ids))
        return bool(answer.cancelled[0])

    async def retry(self, task_ids: Sequence[str]) -> list[str | None]:
        """Submit again what these tasks ran, to run at once; return the ids of the new tasks. As `Client.retry`."""
        listed = checked_task_ids(task_ids)
        if not listed:
            return []
        connection = await self._get_connection()
        answer = await connection.answer_to(lambda request_id: RetryTasks(request_id=request_id, task_ids=listed))
        return [new_id or None for new_id in answer.new_task_ids]

    async def purge(self, state: str | Sequence[str] | None = None, older_than_seconds: float = 0.0) -> int:
        """Remove tasks that have ended; return how many. As `Client.purge`."""
        check_number("older_than_seconds", older_than_seconds, least=0)
        states, seconds = checked_names("state", state), float(older_than_seconds)
        connection = await self._get_connection()
        answer = await connection.answer_to(
            lambda request_id: PurgeTasks(request_id=request_id, states=states, older_than_seconds=seconds)
        )
        count: int = answer.count
        return count

    async def logs(self, task_id: str) -> str:
        """Return what a task printed so far. Raises UnknownTask: the server knows no such task."""
        task_id = checked_task_id(task_id)
        connection = await self._get_connection()
        return "".join([piece async for piece in log_pieces(connection, task_id, follow=False)])

    def follow_logs(self, task_id: str) -> AsyncIterator[str]:
        """Yield what a task printed, and then what it prints, until it has ended."""
        return self._followed_logs(checked_task_id(task_id))

    async def _followed_logs(self, task_id: str) -> AsyncGenerator[str, None]:
        async with aclosing(log_pieces(await self._get_connection(), task_id, follow=True)) as pieces:
            async for piece in pieces:
                yield piece

    async def tasks(
        self, state: str | Sequence[str] | None = None, limit: int = 1000, *, tags: str | Sequence[str] | None = None
    ) -> list[TaskInfo]:
        """Return the tasks the server knows, newest first. As `Client.tasks`."""
        limit = check_number("limit", limit, least=0, is_whole=True)
        states, all_tags = checked_names("state", state), checked_names("tags", tags)
        connection = await self._get_connection()
        tasks: list[TaskInfo] = []
        before: int | None = None
        while len(tasks) < limit:
            size = min(int(limit) - len(tasks), PAGE_TASKS)
            request = ListTasks(request_id=0, states=states, limit=size, before=before, tags=all_tags)
            answer = await connection.answer_to(lambda request_id: replace(request, request_id=request_id))  # noqa: B023
            tasks += answer.tasks
            if len(answer.tasks) < size:
                break
            before = tasks[-1].sequence
        return tasks

    async def get_status(self) -> dict[str, Any]:
        """Return how the server is. As `Client.get_status`."""
        connection = await self._get_connection()
        answer = await connection.answer_to(lambda request_id: GetStatus(request_id=request_id))
        status: dict[str, Any] = answer.status
        return status

    async def drain(self, is_on: bool = True) -> None:
        """Have the server start nothing more, or do so again. As `Client.drain`."""
        if not isinstance(is_on, bool):
            raise TypeError(f"is_on must be True or False, not {is_on!r}")
        connection = await self._get_connection()
        await connection.answer_to(lambda request_id: DrainServer(request_id=request_id, is_on=is_on))

    async def quit(self, drain_seconds: float | None = None) -> None:
        """Stop the server. As `Client.quit`."""
        check_number("drain_seconds", drain_seconds, least=0, may_be_none=True)
        seconds = None if drain_seconds is None else float(drain_seconds)
        connection = await self._get_connection()
        await connection.answer_to(lambda request_id: QuitServer(request_id=request_id, drain_seconds=seconds))


class AsyncClientView(_AsyncCalls):
    """A client with options of its own. Made by `AsyncClient.options`; shares the client's connection."""

    def __init__(self, client: AsyncClient, levels: OptionLevels) -> None:
        self._client = client
        self._shared = client._shared
        self._levels = levels

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} of {self._client!r}>"

    @takes_options
    def options(self, **options: Unpack[CallOptionArguments]) -> AsyncClientView:
        """As `AsyncClient.options`, on top of the options of this view."""
        return AsyncClientView(self._client, self._levels.nearer(options))

    async def _get_connection(self) -> AsyncConnection:
        return await self._client._get_connection()


async def _query(connection: AsyncConnection, task_id: str, wait_seconds: float, *, take: bool) -> TaskReport | None:
    answer = await connection.answer_to(
        lambda request_id: QueryResults(request_id=request_id, task_ids=[task_id], wait_seconds=wait_seconds, take=take)
    )
    report: TaskReport | None = answer.reports[0]
    return report


def _new_task_id(options: TaskOptions) -> str:
    return task_id_for_key(options.idempotency_key) if options.idempotency_key else new_task_id()
