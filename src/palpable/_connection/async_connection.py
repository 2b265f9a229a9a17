"""A connection for programs that run on an asyncio loop: no threads, everything happens in the loop.

What is sent in one turn of the loop leaves together. Not safe to use from other threads, as nothing in asyncio is.

It ends and goes on as `connection` does: when its link breaks and something is expected from the server, a task of the
loop connects again, and the new link takes over what is expected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal

from palpable._connection.address import Address
from palpable._connection.async_link import AsyncLink
from palpable._connection.broken import broken
from palpable._connection.inside import current_task_id
from palpable._connection.outbox import FRAME_OVERHEAD_BYTES, Delivery
from palpable._connection.pending import Pending
from palpable._connection.reconnecting import delays, seconds_to_try
from palpable._connection.refusals import too_large
from palpable._connection.shared_taker import submit_shared
from palpable._connection.waiting import LogRequest, Request, ResultTaker
from palpable._wire.messages import BeginWait, EndWait, Message, Report, TaskOptions, TaskRequest
from palpable.units.task_exceptions import PalpableError, ServerError, ServerUnreachable

ACCEPTANCE_SECONDS = 0.002
"""How often `close` looks whether everything is accepted."""
CLOSE_SECONDS = 2.0
"""How long `close` waits for a server that is away and has not got everything."""


class AsyncRequest(LogRequest):
    """A question to the server, awaited; with one answer, or one in pieces."""

    __slots__ = ("_news",)

    def __init__(self, request_id: int, on_answer: Callable[[Message], None] | None = None) -> None:
        super().__init__(request_id)
        self.on_answer = on_answer
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

    def __init__(self, task_id: str, future: asyncio.Future[Report]) -> None:
        self.task_id = task_id
        self._future = future

    def take(self, report: Report) -> bool:
        if not self._future.done():
            self._future.set_result(report)
        return True

    def fail(self, error: Exception) -> bool:
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # nobody has to look at it
        return True

    def finish(self, report: Report) -> None:
        self.take(report)

    def finish_failed(self, error: Exception) -> None:
        self.fail(error)


class AsyncConnection:
    """A connection to a server, after the handshake, over one link after another.

    Args:
        link: the first one, proven.
        address: where it leads, for messages.
        dial: makes another one, proven. Raises ServerUnreachable when there may be one later.
        reconnect_seconds: how long to try that when a link breaks and something is expected. 0: never. None: as long as
            the server is worth waiting for.
    """

    def __init__(
        self,
        link: AsyncLink,
        address: Address,
        dial: Callable[[], Awaitable[AsyncLink]],
        reconnect_seconds: float | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._dial = dial
        self._reconnect_seconds = reconnect_seconds
        self._pending = Pending()
        self._broken = ""
        self._is_closing = False
        self._failure = ""
        self._waits = delays()
        self._until = 0.0
        self._is_first_try = True
        self._reconnecting: asyncio.Task[None] | None = None
        self._task_id = link.inside_task
        self.is_inside_task = bool(link.inside_task)
        self._learn(link.info)
        self._link = link
        link.serve(self._pending, self._on_break)
        self._is_first_link = True

    def _learn(self, info: Mapping[str, Any]) -> None:
        self.info: Mapping[str, Any] = info
        self._max_task_bytes = int(info.get("max_payload_bytes") or 1 << 30) - FRAME_OVERHEAD_BYTES

    def server_info(self) -> Mapping[str, Any]:
        """Return what the server says of itself."""
        return self.info

    # --- tasks and questions ----------------------------------------------------------------------------------------

    def submit(
        self,
        request: TaskRequest,
        function: bytes,
        options: TaskOptions,
        *,
        is_kept: bool = False,
        needs_exit: bool = False,
    ) -> asyncio.Future[Report]:
        """Submit a task; return the future of its report. It leaves at the end of this turn of the loop.

        Args:
            is_kept: the server keeps the result for a query; the future is never done.
        """
        if self._broken:
            raise self._error(self._broken)
        size = len(request.payload) + len(function)
        if size > self._max_task_bytes:
            raise too_large(request.name, size, self._max_task_bytes + FRAME_OVERHEAD_BYTES)
        future: asyncio.Future[Report] = asyncio.Future(loop=self._loop)  # `create_future` is one call more
        if is_kept:
            self._add(request, function, options, None, needs_exit)
        elif options.idempotency_key:
            submit_shared(
                self._pending.takers,
                request.task_id,
                AsyncArrival(request.task_id, future),
                lambda taker: self._add(request, function, options, taker, needs_exit),
            )
        else:
            self._add(request, function, options, AsyncArrival(request.task_id, future), needs_exit)
        return future

    def _add(
        self, request: TaskRequest, function: bytes, options: TaskOptions, taker: ResultTaker | None, needs_exit: bool
    ) -> None:
        delivery: Delivery = "none" if taker is None else "push"
        link = self._link
        if link.outbox.add_task(request, function, options, delivery, needs_exit, taker) and not link.broken:
            link.flush_batch()
        else:
            self._send()

    @property
    def is_full(self) -> bool:
        """Whether the server takes no more now."""
        return self._link.is_full

    async def drain(self) -> None:
        """Wait while the server takes no more."""
        await self._link.drain()

    def ask(self, make: Callable[[int], Message], on_answer: Callable[[Message], None] | None = None) -> AsyncRequest:
        """Send the request `make(request_id)`; the answer comes into what is returned."""
        self._check()
        request = AsyncRequest(self._link.outbox.new_request_id(), on_answer)
        self._link.outbox.ask(request, make(request.request_id))
        self._send()
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
            self._link.outbox.add(message)
            self._link.flush_soon()

    def ask_and_forget(self, make: Callable[[int], Message]) -> None:
        """Send a request whose answer nobody wants."""
        if not self._broken:
            self.ask(make, self._pending.forget_answer)

    def _send(self) -> None:
        if self._link.broken:
            self._ensure_link()
        else:
            self._link.flush_soon()

    async def wait_for_tasks(
        self,
        futures: Sequence[asyncio.Future[Report]],
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

    # --- whole again --------------------------------------------------------------------------------------------------

    @property
    def _needs_link(self) -> bool:
        return bool(self._link.broken) and not self._broken and self._link.outbox.expects_something

    def _ensure_link(self) -> None:
        if self._reconnecting is None and self._needs_link:
            self._reconnecting = self._loop.create_task(self._reconnect())

    def _on_break(self, link: AsyncLink) -> None:
        """A link has broken."""
        if link is not self._link or self._broken:
            return
        # Inside a task the server is the task's own: they end together.
        if self._is_closing or self.is_inside_task or self._reconnect_seconds == 0:
            self.break_off("it was closed" if self._is_closing else link.broken)
            return
        # To be connected is enough, the first time.
        self._is_first_try = link.has_progressed or self._is_first_link
        self._is_first_link = False
        if self._is_first_try:
            self._waits = delays()
            self._until = monotonic() + seconds_to_try(self._reconnect_seconds, self.info)
        self._failure = "it broke again and again"
        for request in list(self._pending.requests.values()):
            if not request.is_repeatable:
                request.fail(self._error(link.broken))
        self._ensure_link()

    async def _reconnect(self) -> None:
        """As long as a link is needed: wait, unless it is the first time; dial; go on with what came."""
        try:
            while self._needs_link:
                if not self._is_first_try:
                    wait_seconds = next(self._waits)
                    if monotonic() + wait_seconds > self._until:
                        self._give_up(self._failure)
                        return
                    await asyncio.sleep(wait_seconds)
                self._is_first_try = False
                try:
                    self._adopt(await self._dial())
                except ServerUnreachable as error:
                    self._failure = f"connecting again failed: {error}"
        except PalpableError as error:  # another key, another program, another server
            self._give_up(f"connecting again failed: {error}")
        except BaseException as error:
            # Whatever it is (the loop ends, say), somebody waits, and nobody else would tell them.
            self._give_up(f"connecting again failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._reconnecting = None

    def _adopt(self, link: AsyncLink) -> None:
        if not self.resume(link):
            link.abort()
            raise ServerError(f"another server than before answers at {self._address}")

    def resume(self, link: AsyncLink, *, is_new: bool = False) -> bool:
        """Go on with a new link; return False if it leads to another server.

        Args:
            is_new: somebody calls anew; this is no further try to save what is expected.
        """
        server_id = self.info.get("server_id")
        is_ours = self._loop is asyncio.get_running_loop() and not self.is_inside_task and not link.inside_task
        if self._broken or not is_ours or not server_id or link.info.get("server_id") != server_id:
            return False
        if not self._link.broken:
            link.abort()  # somebody was faster
            return True
        link.serve(self._pending, self._on_break)
        self._link.outbox.hand_over(link.outbox, monotonic())
        self.info, self._link, self._is_first_link = link.info, link, is_new
        if link.broken:  # before it served
            self._on_break(link)
        else:
            link.flush()
        return True

    def _give_up(self, reason: str) -> None:
        self.break_off(f"{self._link.broken}; {reason.rstrip('.')}")

    # --- ends ---------------------------------------------------------------------------------------------------------

    def check_loop(self) -> None:
        """Raise RuntimeError if it belongs to another loop, which runs: in another thread, that is."""
        if self._loop is not asyncio.get_running_loop() and self._loop.is_running():
            raise RuntimeError(
                "this AsyncClient is in use by the event loop of another thread; make one AsyncClient for each loop, "
                "or use a Client, which all threads can share"
            )

    @property
    def is_usable(self) -> bool:
        """Whether calls may use it: it is whole, or about to be, and belongs to this loop and to this task."""
        if self._loop is not asyncio.get_running_loop():
            return False
        if self._task_id and self._task_id != current_task_id():
            return False
        return not self._broken and (not self._link.broken or self._needs_link)

    def _check(self) -> None:
        if self._broken:
            raise self._error(self._broken)

    def _error(self, reason: str) -> ServerUnreachable:
        return broken(reason, self._address.url)

    def break_off(self, reason: str) -> None:
        """Fail everything that is pending, and everything to come."""
        if self._broken:
            return
        self._broken = reason
        self._link.break_off(reason)
        self._pending.fail_everything(lambda: self._error(reason))

    async def close(self) -> None:
        """Send what is unsent, see it accepted, close, and wait until the socket is."""
        if self._reconnecting is not None and self._link.outbox.expects_acceptance:
            await asyncio.wait({self._reconnecting}, timeout=CLOSE_SECONDS)
        self._is_closing = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait({self._reconnecting})
        if not self._link.broken:
            self._link.flush()
            # To send is not enough: see `Connection._flush_at_end`.
            deadline = monotonic() + CLOSE_SECONDS
            while self._link.outbox.expects_acceptance and not self._link.broken and monotonic() < deadline:
                await asyncio.sleep(ACCEPTANCE_SECONDS)
            await self._link.close()
        self.break_off("it was closed")
