"""A connection for programs that run on an asyncio loop: no threads, everything happens in the loop.

What is sent in one turn of the loop leaves together. Not safe to use from other threads, as nothing in asyncio is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from palpable._connection.address import Address
from palpable._connection.dialing import CONNECT_SECONDS, Tls, certificates_in, tls_unreachable, unreachable
from palpable._connection.inside import current_task_id, identity
from palpable._connection.outbox import Outbox
from palpable._connection.pending import Pending
from palpable._connection.shared_taker import submit_shared
from palpable._connection.waiting import LogRequest, Request, ResultTaker
from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.handshake import HANDSHAKE_LIMIT_BYTES, ClientHandshake, HandshakeToClient
from palpable._wire.messages import BeginWait, EndWait, Message, ServerAnswer, TaskOptions, TaskReport, TaskRequest
from palpable.units.task_exceptions import PayloadTooLarge, ServerError, ServerUnreachable


class AsyncRequest(LogRequest):
    """A question to the server, awaited; with one answer, or one in pieces."""

    __slots__ = ("_news",)

    def __init__(self, request_id: int) -> None:
        super().__init__(request_id)
        self._news = asyncio.Event()

    def wake_watchers(self) -> None:
        self._news.set()

    async def news(self) -> None:
        """Wait for a piece that was not taken, or the end."""
        while not self.has_news():
            self._news.clear()
            await self._news.wait()


class AsyncArrival:
    """The result of a task on its way to an asyncio future. A `ResultTaker`."""

    __slots__ = ("_future", "task_id")

    def __init__(self, task_id: str, future: asyncio.Future[TaskReport]) -> None:
        self.task_id = task_id
        self._future = future

    def take(self, report: TaskReport) -> bool:
        if not self._future.done():
            self._future.set_result(report)
        return True

    def fail(self, error: Exception) -> bool:
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # nobody has to look at it
        return True

    def finish(self, report: TaskReport) -> None:
        self.take(report)

    def finish_failed(self, error: Exception) -> None:
        self.fail(error)


class AsyncConnection(asyncio.Protocol):
    """A connection to a server, after the handshake. Made by `open_async`."""

    def __init__(self, address: Address, authkey: bytes) -> None:
        task_id, token = identity()
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._handshake: ClientHandshake | None = ClientHandshake(authkey, task_id, token)
        self._reader: FrameReader[Any] = FrameReader(HandshakeToClient, limit_bytes=HANDSHAKE_LIMIT_BYTES)
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox()
        self._pending = Pending(self._outbox, lambda function: function(), self._flush)
        self._is_flush_due = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self._broken = ""
        self.is_inside_task = bool(task_id and token)
        self._task_id = task_id if token else ""
        self.info: Mapping[str, Any] = {}
        self.proven: asyncio.Future[None] = self._loop.create_future()
        """Done when the handshake is."""

    # --- called by the loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        assert self._handshake is not None
        self._transport.write(bytes(encode_frame(self._handshake.hello())))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                if self._handshake is None:
                    self._pending.handle(message)
                else:
                    self._shake_hands(message)
        except FrameError as error:
            if self._handshake is not None:
                self._refuse(ServerError(f"what listens at {self._address} is no Palpable server: {error}"))
            self._break_off(f"what it sent is not understood ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        self._break_off(str(error or "the server closed the connection"))
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _shake_hands(self, message: Any) -> None:
        assert self._handshake is not None and self._transport is not None
        try:
            answer = self._handshake.answer(message)
        except Exception as error:
            self._refuse(error)
            return
        if answer is not None:
            self._transport.write(bytes(encode_frame(answer)))
            return
        assert self._handshake.welcome is not None
        self.info = self._handshake.welcome.server
        self._handshake = None
        self._reader = FrameReader(ServerAnswer, limit_bytes=(1 << 32) - 1)
        if not self.proven.done():
            self.proven.set_result(None)

    def _refuse(self, error: Exception) -> None:
        if not self.proven.done():
            self.proven.set_exception(error)
        self.abort()

    # --- tasks and questions ----------------------------------------------------------------------------------------

    def submit(
        self,
        request: TaskRequest,
        function: bytes,
        options: TaskOptions,
        *,
        is_kept: bool = False,
        needs_exit: bool = False,
    ) -> asyncio.Future[TaskReport]:
        """Submit a task; return the future of its report. It leaves at the end of this turn of the loop.

        Args:
            is_kept: the server keeps the result for a query; the future is never done.
        """
        self._check()
        size, limit = len(request.payload) + len(function), int(self.info.get("max_payload_bytes") or 1 << 30)
        if size + 1024 > limit:
            raise PayloadTooLarge(
                f"{request.name or 'the task'} and its arguments take {size} bytes pickled; the server accepts {limit}",
                size_bytes=size,
                limit_bytes=limit,
            )
        future: asyncio.Future[TaskReport] = self._loop.create_future()
        arrival = AsyncArrival(request.task_id, future)
        if is_kept:
            self._add(request, function, options, None, needs_exit)
        elif options.idempotency_key:
            submit_shared(
                self._pending.takers,
                request.task_id,
                arrival,
                lambda taker: self._add(request, function, options, taker, needs_exit),
            )
        else:
            self._add(request, function, options, arrival, needs_exit)
        return future

    def _add(
        self, request: TaskRequest, function: bytes, options: TaskOptions, taker: ResultTaker | None, needs_exit: bool
    ) -> None:
        if taker is not None:
            self._pending.takers[request.task_id] = taker
        self._outbox.add_task(request, function, options, "none" if taker is None else "push", needs_exit)
        self._flush_soon()

    @property
    def is_full(self) -> bool:
        """Whether the server takes no more now."""
        return not self._writable.is_set()

    async def drain(self) -> None:
        """Wait while the server takes no more."""
        await self._writable.wait()

    def ask(self, make: Callable[[int], Message]) -> AsyncRequest:
        """Send the request `make(request_id)`; the answer comes into what is returned."""
        self._check()
        request = AsyncRequest(self._outbox.new_request_id())
        self._pending.requests[request.request_id] = request
        self._outbox.add(make(request.request_id))
        self._flush_soon()
        return request

    async def answer_to(self, make: Callable[[int], Message]) -> Any:
        """Ask, and return the answer; raises what the server refuses it with."""
        request = self.ask(make)
        try:
            await request.news()
        finally:
            self.forget(request)
        if request.error is not None:
            raise request.error
        return request.answer

    def forget(self, request: Request) -> None:
        """Nobody waits for this answer any more."""
        self._pending.requests.pop(request.request_id, None)

    def send(self, message: Message) -> None:
        """Send a message that has no answer."""
        if not self._broken:
            self._outbox.add(message)
            self._flush_soon()

    def ask_and_forget(self, make: Callable[[int], Message]) -> None:
        """Send a request whose answer nobody wants."""
        if not self._broken:
            request = self.ask(make)
            self.forget(request)

    async def wait_for_tasks(
        self,
        futures: Sequence[asyncio.Future[TaskReport]],
        task_ids: Callable[[], Sequence[str]],
        *,
        needs: Literal["all", "any"] = "all",
        until: str = asyncio.ALL_COMPLETED,
    ) -> None:
        """Wait for results; inside a task its slot is free meanwhile. Raises nothing that a future holds."""
        if all(future.done() for future in futures):
            return
        if not self.is_inside_task:
            await asyncio.wait(futures, return_when=until)
            return
        wait = self.ask(lambda wait_id: BeginWait(wait_id=wait_id, task_ids=list(task_ids()), needs=needs))
        over = asyncio.ensure_future(wait.news())
        arrived = asyncio.ensure_future(asyncio.wait(futures, return_when=until))
        try:
            await asyncio.wait((over, arrived), return_when=asyncio.FIRST_COMPLETED)
            if wait.error is not None:
                raise wait.error
            await arrived
            if needs == "any" or all(future.done() for future in futures):
                await over  # goes on only with a slot
        finally:
            over.cancel()
            arrived.cancel()
            self.forget(wait)
            if not wait.is_done():
                self.send(EndWait(wait_id=wait.request_id))

    # --- sending ------------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._transport is not None and not self._broken:
            self._outbox.flush(self._write, None)

    def _write(self, data: Any, flags: int = 0) -> int:
        assert self._transport is not None
        self._transport.write(bytes(data))  # a copy: the transport may keep it for longer than we do
        return len(data)

    # --- ends ---------------------------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether it is not broken, and belongs to the loop that runs, and to the task this process runs."""
        is_ours = self._loop is asyncio.get_running_loop() and self._task_id in ("", current_task_id())
        return is_ours and not self._broken

    def _check(self) -> None:
        if self._broken:
            raise self._error()

    def _error(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"the connection to the server at {self._address} broke: {self._broken}. "
            f"Is the server still running? The next call of the client connects again.",
            address=self._address.url,
        )

    def _break_off(self, reason: str) -> None:
        if self._broken:
            return
        self._broken = reason
        if not self.proven.done():
            self.proven.set_exception(unreachable(self._address, ConnectionResetError(reason)))
        self._writable.set()
        self._pending.fail_everything(self._error)
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the socket is."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            try:
                await asyncio.wait_for(self._closed.wait(), CONNECT_SECONDS)
            except TimeoutError:  # the server reads no more
                self.abort()
        self._break_off("it was closed")


async def open_async(address: Address, authkey: bytes, tls: Tls = None) -> AsyncConnection:
    """Return a connection to the server at `address`, as `dialing.dial` does."""
    import os

    if isinstance(tls, str | os.PathLike):
        pinned = certificates_in(tls)
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        connection = await _open(address, authkey, anyone, pinned=pinned)
        if connection is not None:
            return connection
        tls = ssl.create_default_context(cafile=os.fspath(tls))
    elif tls is True:
        tls = ssl.create_default_context()
    connection = await _open(address, authkey, tls or None)
    assert connection is not None
    return connection


async def _open(
    address: Address, authkey: bytes, context: ssl.SSLContext | None, pinned: set[bytes] | None = None
) -> AsyncConnection | None:
    loop = asyncio.get_running_loop()
    protocol = AsyncConnection(address, authkey)
    connection = protocol if pinned is None else _Pinned(address, authkey, pinned)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if address.path:
                await loop.create_unix_connection(lambda: connection, address.path)
            else:
                await loop.create_connection(
                    lambda: connection,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context else None,
                )
            await connection.proven
    except BaseException as error:
        connection.abort()
        if isinstance(connection, _Pinned) and connection.is_other:
            return None
        if isinstance(error, ssl.SSLError):
            raise tls_unreachable(address, error) from None
        if isinstance(error, OSError) and not isinstance(error, ServerUnreachable):
            raise unreachable(address, error) from None
        raise
    return connection


class _Pinned(AsyncConnection):
    """A connection that speaks only to a server with one of these certificates."""

    def __init__(self, address: Address, authkey: bytes, pinned: set[bytes]) -> None:
        super().__init__(address, authkey)
        self._pinned = pinned
        self.is_other = False
        """Whether the server showed another certificate. Nothing was said to it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if transport.get_extra_info("ssl_object").getpeercert(binary_form=True) in self._pinned:
            super().connection_made(transport)
            return
        self.is_other = True
        self._transport = cast(asyncio.Transport, transport)
        self._refuse(ServerError("another certificate"))
