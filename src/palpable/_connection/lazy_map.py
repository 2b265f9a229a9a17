"""`imap`: a map over params that may be endless, read only as far ahead as needed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal

from palpable._connection import bulk
from palpable._connection.connection import Connection
from palpable._connection.param_source import ParamSource, dumps_next
from palpable._connection.task_waits import wait_for_tasks
from palpable._connection.waiting import Arrival, Group
from palpable._connection.window import Window
from palpable._wire.chunk_failure import results_before
from palpable._wire.messages import TaskOptions, TaskRequest
from palpable._wire.payload import dumps_function, result_of
from palpable.units.task_exceptions import PayloadTooLarge


def lazy_map(
    connection: Connection,
    function: Callable[[Any], Any],
    params: Iterable[Any],
    options: TaskOptions,
    new_task_id: Callable[[], str],
    *,
    window: int | None = None,
    chunksize: int | Literal["auto"] = "auto",
    is_ordered: bool = True,
) -> Generator[list[Any], None, None]:
    """Yield `function(param)` for each param, in lists as they come.

    When it is closed, what it submitted and did not yield is cancelled.

    An error is raised after the results of the calls before it, also of those in the same chunk; unless the process of
    a chunk died or was ended, which takes the whole chunk along.

    Args:
        window: tasks that may be under way, or done and not yielded; a chunk is one; None: some for each worker.
        is_ordered: yield in the order of the params; else as they end.
    """
    pickled = dumps_function(function)
    source = ParamSource(params)
    is_single = chunksize == "auto" and bulk.isolation_of(connection, options) == "task"
    ahead: Window[Arrival] = Window(
        bulk.workers_of(connection), is_single=is_single, window=window, chunksize=chunksize
    )
    group = Group()
    sizes, arrived = ahead.sizes, group.arrived

    def is_ready() -> bool:
        if is_ordered:
            return bool(sizes) and next(iter(sizes)).is_there()
        return bool(arrived)

    def room() -> int:
        return 0 if source.is_exhausted else ahead.room(len(arrived), is_ready=is_ready())

    def is_over() -> bool:
        # One slow chunk at the head is no reason for the workers to run dry, as long as the window has room.
        return is_ready() or (not source.is_exhausted and ahead.is_low(room()))

    def fill() -> None:
        while room() > 0 and not (source.is_slow and is_ready()):
            payload, size = dumps_next(source, ahead.chunksize, is_single=is_single)
            if size:
                request = TaskRequest(
                    new_task_id(), "call" if is_single else "chunk", pickled.key, payload, pickled.name
                )
                arrival = Arrival(request.task_id, group, is_chunk=not is_single)
                # Known before it is sent: an interrupt between the two has it cancelled for nothing, which is no harm.
                ahead.add(arrival, size)
                try:
                    connection.add_task(request, pickled.data, options, arrival)
                except PayloadTooLarge as error:
                    ahead.remove(arrival)
                    source.fail(error)
        connection.flush()

    def wait() -> None:
        if is_ordered:
            head = next(iter(sizes))
            wait_for_tasks(
                connection, is_over, (group,), lambda: (head.task_id,), is_cut_short=lambda: not head.is_there()
            )
        else:
            wait_for_tasks(
                connection,
                is_over,
                (group,),
                lambda: bulk.ids_of(sizes),
                needs="any",
                is_cut_short=lambda: not is_ready(),
            )

    try:
        while True:
            if ahead.is_low(room()):
                fill()
            if not sizes:
                break
            if not is_ready():
                wait()
                if not is_ready():
                    continue
            arrival = next(iter(sizes if is_ordered else arrived))
            ahead.remove(arrival)
            arrived.pop(arrival, None)
            report = arrival.report
            if report is None or report.outcome != "succeeded":
                bulk.cancel_rest(connection, sizes)  # now: the caller may take his time with what follows
                sizes.clear()
                if report is not None and (before := results_before(report)):
                    yield before
                raise arrival.exception()
            values = result_of(report)
            ahead.adapt(report.elapsed_seconds, len(values) if arrival.is_chunk else 1)
            batch = [values] if is_single else values
            del arrival, report, values  # what is out with the caller, who takes it from the list, is not held here
            yield batch
        if source.error is not None:
            raise source.error
    finally:
        bulk.cancel_rest(connection, sizes)
