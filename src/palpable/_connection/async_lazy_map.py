"""`imap` on an asyncio loop: a map over params that may be endless, and may come from an asynchronous source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Any, Literal

from palpable._connection.async_connection import AsyncConnection
from palpable._connection.async_param_source import AsyncParamSource
from palpable._connection.bulk import isolation_of, workers_of
from palpable._connection.param_source import ParamSource, dumps_next
from palpable._connection.window import Window
from palpable._wire.chunk_failure import results_before
from palpable._wire.messages import CancelTasks, Report, TaskOptions, TaskRequest
from palpable._wire.payload import dumps_function, exception_of, result_of
from palpable.units.task_exceptions import PayloadTooLarge


class _Chunk:
    """Params on their way, and the report of them."""

    __slots__ = ("report", "task_id")

    def __init__(self, task_id: str, report: asyncio.Future[Report]) -> None:
        self.task_id = task_id
        self.report = report


async def async_lazy_map(
    connection: AsyncConnection,
    function: Callable[[Any], Any],
    params: Iterable[Any] | AsyncIterable[Any],
    options: TaskOptions,
    new_task_id: Callable[[], str],
    *,
    window: int | None,
    chunksize: int | Literal["auto"],
    is_ordered: bool,
) -> AsyncGenerator[Any, None]:
    """As `lazy_map`, with results that are awaited.

    Args:
        params: an iterator of either kind.
    """
    pickled = dumps_function(function)
    is_single = chunksize == "auto" and isolation_of(connection, options) == "task"
    ahead: Window[_Chunk] = Window(workers_of(connection), is_single=is_single, window=window, chunksize=chunksize)
    sizes, arrived = ahead.sizes, dict[_Chunk, None]()
    news = asyncio.Event()
    stream = AsyncParamSource(params, news.set) if isinstance(params, AsyncIterable) else None
    source = stream if stream is not None else ParamSource(params)  # type: ignore[arg-type]

    def room() -> int:
        return 0 if source.is_exhausted else ahead.room(len(arrived), is_ready=first() is not None)

    def may_read() -> bool:
        is_waited_for = isinstance(source, ParamSource) and source.is_slow and bool(arrived)
        return room() > 0 and not is_waited_for

    def fill() -> None:
        while may_read():
            payload, size = dumps_next(source, ahead.chunksize, is_single=is_single)
            if not size:
                break
            try:
                submit(payload, size)
            except PayloadTooLarge as error:
                source.fail(error)
        if stream is not None:
            stream.ask_for(ahead.chunksize if ahead.may_read() else 0)

    def submit(payload: bytes, size: int) -> None:
        request = TaskRequest(new_task_id(), "call" if is_single else "chunk", pickled.key, payload, pickled.name)
        chunk = _Chunk(request.task_id, connection.submit(request, pickled.data, options))
        ahead.add(chunk, size)

        def note(_: asyncio.Future[Report]) -> None:
            if chunk in sizes:  # not taken yet
                arrived[chunk] = None
            news.set()

        chunk.report.add_done_callback(note)

    def first() -> _Chunk | None:
        if not is_ordered:
            return next(iter(arrived), None)
        head = next(iter(sizes), None)
        return head if head is not None and head.report.done() else None

    async def wait() -> None:
        if not connection.is_inside_task or not sizes:
            await news.wait()
            return
        waited_for = list(sizes)[:1] if is_ordered else list(sizes)
        await connection.wait_for_tasks(
            [chunk.report for chunk in waited_for],
            lambda: [chunk.task_id for chunk in waited_for if not chunk.report.done()],
            needs="any",
            until=asyncio.FIRST_COMPLETED,
        )
        await asyncio.sleep(0)  # what is done is noted in the next turn of the loop

    def cancel_rest() -> None:
        task_ids = [chunk.task_id for chunk in sizes if not chunk.report.done()]
        sizes.clear()
        if task_ids:
            connection.ask_and_forget(lambda request_id: CancelTasks(request_id=request_id, task_ids=task_ids))

    try:
        while True:
            news.clear()
            if connection.is_full:
                await connection.drain()
            if ahead.is_low(room()):
                fill()
            chunk = first()
            if chunk is None:
                if source.is_exhausted and not sizes:
                    break
                await wait()
                continue
            ahead.remove(chunk)
            arrived.pop(chunk, None)
            report = chunk.report.result()
            if report.outcome != "succeeded":
                cancel_rest()  # now: the caller may take his time with what follows
                for value in results_before(report):
                    yield value
                raise exception_of(report)
            values = result_of(report)
            ahead.adapt(report.elapsed_seconds, 1 if is_single else len(values))
            del chunk, report
            if is_single:
                yield values
                del values
            else:
                for value in values:
                    yield value
        if source.error is not None:
            raise source.error
    finally:
        cancel_rest()
        if stream is not None:
            await stream.close()
