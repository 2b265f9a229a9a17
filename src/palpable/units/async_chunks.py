"""Many params for one function, awaited: the tasks of `AsyncClient.map`, and the end of those that nobody wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from palpable._connection.async_connection import AsyncConnection
from palpable._wire.messages import CancelTasks, Report, TaskOptions, TaskRequest
from palpable._wire.payload import PickledFunction, dumps_param, dumps_params
from palpable.units.async_task_future import AsyncTaskFuture, opened
from palpable.units.task import new_task_id
from palpable.units.task_exceptions import ServerUnreachable


def _submit_chunk(
    connection: AsyncConnection,
    pickled: PickledFunction,
    chunk: list[Any],
    position: int,
    options: TaskOptions,
    *,
    is_single: bool,
) -> AsyncTaskFuture[Any]:
    form: Literal["call", "chunk"] = "call" if is_single else "chunk"
    payload = dumps_param(chunk[0], position) if is_single else dumps_params(chunk, position)
    request = TaskRequest(new_task_id(), form, pickled.key, payload, pickled.name)
    report = connection.submit(request, pickled.data, options)
    return AsyncTaskFuture(request.task_id, connection, report)


async def run_chunks(
    connection: AsyncConnection,
    pickled: PickledFunction,
    chunks: list[list[Any]],
    options: TaskOptions,
    *,
    is_single: bool,
    report: Callable[[int], None] | None,
) -> list[AsyncTaskFuture[Any]]:
    """Return the futures of the chunks, all of which have succeeded; the first failure is raised, and ends the rest."""
    futures: list[AsyncTaskFuture[Any]] = []
    done_count = position = 0

    def add(size: int, _: object) -> None:
        nonlocal done_count
        done_count += size
        assert report is not None
        report(done_count)

    try:
        for chunk in chunks:
            await connection.drain()
            future = _submit_chunk(connection, pickled, chunk, position, options, is_single=is_single)
            position += len(chunk)
            futures.append(future)
            if report is not None:
                future._report.add_done_callback(partial(add, len(chunk)))
        await connection.wait_for_tasks(
            [_FailsOnError.of(future._report) for future in futures],
            lambda: [future.task_id for future in futures if not future.done()],
            until=asyncio.FIRST_EXCEPTION,
        )
        failed = next((future for future in futures if future.done() and not _is_success(future._report)), None)
        if failed is not None:
            opened(failed._report.result())  # raises
    except BaseException:
        _cancel_unfinished(connection, futures)
        raise
    return futures


class _FailsOnError:
    """Mirrors a future of a report as one that fails when the task did, for `asyncio.wait`."""

    @staticmethod
    def of(report: asyncio.Future[Report]) -> asyncio.Future[Report]:
        mirror: asyncio.Future[Report] = report.get_loop().create_future()

        def copy(done: asyncio.Future[Report]) -> None:
            if mirror.done():
                return
            if _is_success(done):
                mirror.set_result(done.result())
            else:
                mirror.set_exception(ServerUnreachable("the task failed"))
                mirror.exception()

        report.add_done_callback(copy)
        return mirror


def _is_success(report: asyncio.Future[Report]) -> bool:
    return not report.cancelled() and report.exception() is None and report.result().outcome == "succeeded"


def _cancel_unfinished(connection: AsyncConnection, futures: Sequence[AsyncTaskFuture[Any]]) -> None:
    cancel_tasks(connection, [future.task_id for future in futures if not future.done()])


def cancel_tasks(connection: AsyncConnection, task_ids: Sequence[str]) -> None:
    """End these tasks; does not wait for that."""
    if task_ids:
        connection.ask_and_forget(lambda request_id: CancelTasks(request_id=request_id, task_ids=list(task_ids)))
