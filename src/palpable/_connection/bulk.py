"""One function over one param or many: what `run` and `map` do, for clients and for tasks.

With isolation "task" every param is a task of its own. With "worker" params travel in chunks, one payload there and
one back, since a message would cost more than a small call does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from palpable._connection.connection import Connection
from palpable._connection.questions import cancel_without_waiting
from palpable._connection.shared_taker import submit_shared
from palpable._connection.task_waits import wait_for_tasks
from palpable._connection.waiting import Arrival, Group
from palpable._wire.messages import TaskOptions, TaskRequest
from palpable._wire.payload import dumps_call, dumps_function, dumps_param, dumps_params, result_of
from palpable.units.task_exceptions import PalpableError

CHUNKS_PER_WORKER = 4
"""As in `multiprocessing.Pool.map`: few enough to cost nothing, and enough that no worker is idle for long."""
WATCHED_CHUNKS = 100
"""For a map that somebody watches: a chunk is done as a whole, and a bar that moves eight times says little."""
GATHER_BYTES = 1 << 14
"""Chunks that are smaller leave together; a message costs as much as to pickle so many bytes."""
Report = Callable[[int], None]


class Informed(Protocol):
    """A connection, of either kind."""

    def server_info(self) -> Mapping[str, Any]:
        """Return what the server says of itself."""


def workers_of(connection: Informed) -> int:
    """Return how many workers the server has."""
    return int(connection.server_info().get("num_workers") or 1)


def isolation_of(connection: Informed, options: TaskOptions) -> Literal["task", "worker"]:
    """Return the isolation that tasks with these options get."""
    isolation = options.isolation or connection.server_info().get("isolation")
    return "worker" if isolation == "worker" else "task"


def automatic_chunksize(count: int, workers: int, *, is_watched: bool) -> int:
    """Return how many of `count` params are to travel together. `is_watched`: with a progress bar."""
    chunks = CHUNKS_PER_WORKER * workers
    return math.ceil(count / (max(chunks, WATCHED_CHUNKS) if is_watched else chunks))


def call_one(
    connection: Connection, function: Callable[[Any], Any], param: Any, options: TaskOptions, task_id: str
) -> Any:
    """Return `function(param)`, called in a task; raise what it raises.

    An interrupt of the wait ends the task, unless it has an idempotency key.
    """
    pickled = dumps_function(function)
    request = TaskRequest(task_id, "call", pickled.key, dumps_call((param,), {}), pickled.name)
    group = Group()
    arrival = Arrival(task_id, group)
    try:
        if options.idempotency_key:
            submit_shared(
                connection.pending.takers,
                task_id,
                arrival,
                lambda taker: connection.add_task(request, pickled.data, options, taker),
            )
        else:
            connection.add_task(request, pickled.data, options, arrival)
        wait_for_tasks(connection, arrival.is_there, (group,), lambda: (task_id,))
    except BaseException:
        if not options.idempotency_key:  # with one, others may wait for the same task
            cancel_rest(connection, [arrival])
        raise
    if group.first_failed is not None:
        try:
            raise arrival.exception()
        finally:
            del group, arrival  # the traceback holds this frame, the frame must not hold the error
    assert arrival.report is not None
    return result_of(arrival.report)


def map_all(
    connection: Connection,
    function: Callable[[Any], Any],
    params: Sequence[Any],
    options: TaskOptions,
    new_task_id: Callable[[], str],
    chunksize: int | Literal["auto"] = "auto",
    on_progress: Report | None = None,
) -> list[Any]:
    """Return `[function(param) for param in params]`. The first failure to arrive is raised, and ends the rest.

    Args:
        on_progress: called now and then with the number of params that are done.
    """
    pickled = dumps_function(function)
    group = Group()
    sizes: dict[Arrival, int] = {}
    gathered_bytes = GATHER_BYTES  # the first leaves at once
    try:
        for payload, form, size in _payloads(
            connection, params, options, chunksize, is_watched=on_progress is not None
        ):
            request = TaskRequest(new_task_id(), form, pickled.key, payload, pickled.name)
            arrival = Arrival(request.task_id, group, is_chunk=form == "chunk")
            # Known before it is sent: an interrupt between the two has it cancelled for nothing, which does no harm.
            sizes[arrival] = size
            connection.add_task(request, pickled.data, options, arrival)
            gathered_bytes += len(payload)
            if form == "chunk" and gathered_bytes >= GATHER_BYTES:
                connection.flush(wait=False)  # so that workers have these while the next is pickled
                gathered_bytes = 0
        unpickled = _unpickle_as_they_come(connection, group, sizes) if on_progress is None else {}
        _wait_for_all(connection, group, sizes, on_progress)
        if group.first_failed is not None:
            raise group.first_failed.exception()
    except BaseException:
        cancel_rest(connection, sizes)
        raise
    finally:
        group = Group()  # the traceback of an error holds this frame
    results: list[Any] = []
    for arrival in sizes:
        assert arrival.report is not None
        values = unpickled.pop(arrival) if arrival in unpickled else result_of(arrival.report)
        arrival.report = None
        if arrival.is_chunk:
            results += values
        else:
            results.append(values)
    return results


def _unpickle_as_they_come(connection: Connection, group: Group, sizes: dict[Arrival, int]) -> dict[Arrival, Any]:
    """Return the values of the chunks that came before the last one, unpickled while workers were busy with others.

    Not for tasks: they would give up their slot and wait for it anew for each.
    """
    unpickled: dict[Arrival, Any] = {}
    if connection.is_inside_task or not next(iter(sizes)).is_chunk:
        return unpickled
    while len(unpickled) < len(sizes) - 1:
        connection.wait(lambda: group.first_failed is not None or len(group.arrived) > len(unpickled), (group,))
        if group.first_failed is not None:
            break
        for arrival in list(group.arrived)[len(unpickled) :]:
            assert arrival.report is not None
            unpickled[arrival] = result_of(arrival.report)
    return unpickled


def _wait_for_all(connection: Connection, group: Group, sizes: dict[Arrival, int], on_progress: Report | None) -> None:
    def is_over() -> bool:
        return len(group.arrived) == len(sizes) or group.first_failed is not None

    def has_failed() -> bool:
        return group.first_failed is not None

    if on_progress is None:
        wait_for_tasks(connection, is_over, (group,), lambda: ids_of(sizes), is_cut_short=has_failed)
        return
    # All are of one size but the last, so that nothing has to be added up for every arrival.
    size, last = next(iter(sizes.values())), next(reversed(sizes))
    seen = 0
    while not is_over():
        wait_for_tasks(
            connection,
            lambda: is_over() or len(group.arrived) > seen,  # noqa: B023 - called only during this turn of the loop
            (group,),
            lambda: ids_of(sizes),
            needs="any",
        )
        seen = len(group.arrived)
        on_progress(seen * size - (size - sizes[last] if last in group.arrived else 0))


def _payloads(
    connection: Connection,
    params: Sequence[Any],
    options: TaskOptions,
    chunksize: int | Literal["auto"],
    *,
    is_watched: bool,
) -> Iterator[tuple[bytes, Literal["call", "chunk"], int]]:
    if isolation_of(connection, options) == "task" and chunksize == "auto":
        for position, param in enumerate(params):
            yield dumps_param(param, position), "call", 1
        return
    size = chunksize if isinstance(chunksize, int) else 0
    if not size:
        size = automatic_chunksize(len(params), workers_of(connection), is_watched=is_watched)
    for start in range(0, len(params), size):
        chunk = params[start : start + size]
        yield dumps_params(chunk, start), "chunk", len(chunk)


def ids_of(arrivals: Iterable[Arrival]) -> list[str]:
    """Return the ids of those that have not arrived."""
    return [arrival.task_id for arrival in arrivals if not arrival.is_there()]


def cancel_rest(connection: Connection, arrivals: Iterable[Arrival]) -> None:
    """Cancel those that have not arrived; nobody wants their results any more. Never raises."""
    with suppress(PalpableError):  # another error is on its way to the caller, and says more
        cancel_without_waiting(connection, ids_of(arrivals))
