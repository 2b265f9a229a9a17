"""A client for programs that run on an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, Unpack

from msgspec.structs import replace

from palpable._connection import address as addresses
from palpable._connection.async_connection import AsyncConnection
from palpable._connection.async_link import AsyncLink, open_link
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
    QuitServer,
    RetryTasks,
    TaskInfo,
)
from palpable.units.async_calls import AsyncCalls, SharedConnection, query_one
from palpable.units.async_task_future import log_pieces, opened
from palpable.units.option_levels import OptionLevels, client_levels
from palpable.units.task_exceptions import ServerUnreachable
from palpable.units.task_options import CallOptionArguments, OptionArguments, takes_options
from palpable.units.task_response import TaskResponse
from palpable.units.task_result import TaskResult

if TYPE_CHECKING:
    import ssl


class AsyncClient(AsyncCalls):
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
        self._shared = SharedConnection()
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
        report = await query_one(await self._get_connection(), task_id, 0.0, take=not keep)
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
        report = await query_one(await self._get_connection(), task_id, wait_seconds, take=False)
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


class AsyncClientView(AsyncCalls):
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
