"""What a task submitted by an `AsyncClient` will return, and what is read of a task by who awaits it."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any, Generic, TypeVar

from palpable._connection.async_connection import AsyncConnection
from palpable._connection.refusals import unknown_task
from palpable._wire.messages import CancelTasks, ListTasks, ReadLogs, Report, StopReading, TaskInfo
from palpable._wire.payload import exception_of, result_of

T = TypeVar("T")


class AsyncTaskFuture(Generic[T]):
    """What a submitted task will return: `await future`.

    Cancelling who awaits it leaves the task alone; `cancel` ends it. May be awaited several times, and by several.

    Attributes:
        task_id: which task.
    """

    __slots__ = ("__weakref__", "_connection", "_report", "task_id")

    def __init__(self, task_id: str, connection: AsyncConnection, report: asyncio.Future[Report]) -> None:
        self.task_id = task_id
        self._connection = connection
        self._report = report

    def __await__(self) -> Generator[Any, None, T]:
        report = self._report
        if not report.done():
            yield from self._wait().__await__()
        value: T = opened(report.result())
        return value

    async def _wait(self) -> None:
        if self._connection.is_inside_task:
            await self._connection.wait_for_tasks([self._report], lambda: [self.task_id])
        await asyncio.shield(self._report)

    def done(self) -> bool:
        """Whether the task has ended, in any way."""
        return self._report.done()

    async def state(self) -> str:
        """Return "ready", "running", "retrying", "succeeded" and so on, as the server sees it now."""
        info = None if self.done() else await self._info()
        if info is not None:
            return info.state
        if not self.done():
            return "ready"  # it is not sent yet
        has_report = not self._report.cancelled() and self._report.exception() is None
        return self._report.result().state if has_report else "failed"

    async def progress(self) -> tuple[float, float, str] | None:
        """Return (done, total, note) as the task last said by `Messenger.progress`; None if it said nothing."""
        info = await self._info()
        return None if info is None else info.progress

    async def logs(self) -> str:
        """Return what the task printed so far. Raises UnknownTask: the server knows it no more."""
        return "".join([piece async for piece in log_pieces(self._connection, self.task_id, follow=False)])

    def follow_logs(self) -> AsyncIterator[str]:
        """Yield what the task printed, and then what it prints, until it has ended."""
        return log_pieces(self._connection, self.task_id, follow=True)

    async def _info(self) -> TaskInfo | None:
        answer = await self._connection.answer_to(
            lambda request_id: ListTasks(request_id=request_id, task_ids=[self.task_id])
        )
        return answer.tasks[0] if answer.tasks else None

    async def cancel(self) -> bool:
        """End the task, queued or running; return whether that was done. False: it had ended."""
        if self.done():
            return False
        answer = await self._connection.answer_to(
            lambda request_id: CancelTasks(request_id=request_id, task_ids=[self.task_id])
        )
        return bool(answer.cancelled[0])

    def __repr__(self) -> str:
        return f"<AsyncTaskFuture {self.task_id} {'done' if self.done() else 'pending'}>"


def opened(report: Report) -> Any:
    """Return what the task returned; raise what it raised."""
    if report.outcome == "succeeded":
        return result_of(report)
    error = exception_of(report)
    try:
        raise error
    finally:
        del error  # the traceback holds this frame


async def log_pieces(connection: AsyncConnection, task_id: str, *, follow: bool) -> AsyncGenerator[str, None]:
    """Yield what the task printed; with `follow` also what it prints, until it has ended. Raises UnknownTask."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    request = connection.ask(lambda request_id: ReadLogs(request_id=request_id, task_id=task_id, follow=follow))
    try:
        while True:
            await request.news()
            if request.error is not None:
                raise request.error
            for piece in request.take_pieces():
                if not piece.is_known:
                    raise unknown_task(task_id)
                text = decode(piece.data, piece.is_last)
                if text:
                    yield text
                if piece.is_last:
                    return
    finally:
        connection.forget(request)
        if not request.is_done():
            connection.send(StopReading(request_id=request.request_id))
