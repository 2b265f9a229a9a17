"""One function over many params: what `map` and `imap` do, for clients and for tasks.

With isolation "task" every param is a task of its own. With "worker" params travel in chunks, one payload there and
one back, since a message would cost more than a small call does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any, Literal

from palpable._connection.connection import Connection
from palpable._connection.questions import cancel_without_waiting
from palpable._connection.task_waits import wait_for_tasks
from palpable._connection.waiting import Arrival, Group
from palpable._wire.messages import TaskOptions, TaskRequest
from palpable._wire.payload import PickledFunction, dumps_call, dumps_function, dumps_params, result_of
from palpable.units.task_exceptions import PalpableError

CHUNKS_PER_WORKER = 4
"""As in `multiprocessing.Pool.map`: few enough to cost nothing, and enough that no worker is idle for long."""
TASKS_AHEAD_PER_WORKER = 4
"""How far `imap` reads ahead: a worker that ends a task finds the next, and one more while the answer travels."""
CHUNK_SECONDS = 0.005
"""What a chunk of `imap` should take: long beside a message, short for somebody who waits for the first results."""
CHUNK_MAX = 4096
SLOW_SOURCE_SECONDS = 0.001
"""A source that takes longer than this for a param is not asked for another while there is a result to yield."""

Report = Callable[[int], None]


def workers_of(connection: Connection) -> int:
    """Return how many workers the server has."""
    return int(connection.server_info().get("num_workers") or 1)


def isolation_of(connection: Connection, options: TaskOptions) -> Literal["task", "worker"]:
    """Return the isolation that tasks with these options get."""
    isolation = options.isolation or connection.server_info().get("isolation")
    return "worker" if isolation == "worker" else "task"


def call_one(connection: Connection, function: Callable[..., Any], args: tuple[Any, ...], options: TaskOptions) -> Any:
    """Return `function(*args)`, called in a task; raise what it raises. An interrupt of the wait ends the task."""
    from palpable.units.task import new_task_id

    pickled = dumps_function(function)
    request = TaskRequest(new_task_id(), "call", pickled.key, dumps_call(args, {}), pickled.name)
    group = Group()
    arrival = Arrival(request.task_id, group)
    try:
        connection.add_task(request, pickled.data, options, arrival)
        wait_for_tasks(connection, arrival.is_there, (group,), lambda: (request.task_id,))
    except BaseException:
        _cancel(connection, [arrival])
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
    params: list[Any],
    options: TaskOptions,
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
    try:
        for payload, form, size in _payloads(connection, params, options, chunksize):
            arrival = _send_off(connection, pickled, payload, form, options, group, sizes, size)
        _wait_for_all(connection, group, sizes, on_progress)
        if group.first_failed is not None:
            raise group.first_failed.exception()
    except BaseException:
        _cancel(connection, sizes)
        raise
    finally:
        group = Group()  # the traceback of an error holds this frame
    results: list[Any] = []
    for arrival in sizes:
        assert arrival.report is not None
        values = result_of(arrival.report)
        arrival.report = None
        if arrival.is_chunk:
            results += values
        else:
            results.append(values)
    return results


def _wait_for_all(connection: Connection, group: Group, sizes: dict[Arrival, int], on_progress: Report | None) -> None:
    def is_over() -> bool:
        return len(group.arrived) == len(sizes) or group.first_failed is not None

    def has_failed() -> bool:
        return group.first_failed is not None

    if on_progress is None:
        wait_for_tasks(connection, is_over, (group,), lambda: _ids(sizes), is_cut_short=has_failed)
        return
    seen = 0
    while not is_over():
        wait_for_tasks(
            connection,
            lambda: is_over() or len(group.arrived) > seen,  # noqa: B023 - called only during this turn of the loop
            (group,),
            lambda: _ids(sizes),
            needs="any",
        )
        seen = len(group.arrived)
        on_progress(sum(sizes[arrival] for arrival in list(group.arrived)))


def _payloads(
    connection: Connection, params: list[Any], options: TaskOptions, chunksize: int | Literal["auto"]
) -> Iterator[tuple[bytes, Literal["call", "chunk"], int]]:
    if isolation_of(connection, options) == "task" and chunksize == "auto":
        for param in params:
            yield dumps_call((param,), {}), "call", 1
        return
    if isinstance(chunksize, str):
        chunksize = math.ceil(len(params) / (CHUNKS_PER_WORKER * workers_of(connection)))
    for start in range(0, len(params), chunksize):
        chunk = params[start : start + chunksize]
        yield dumps_params(chunk), "chunk", len(chunk)


def _send_off(
    connection: Connection,
    pickled: PickledFunction,
    payload: bytes,
    form: Literal["call", "chunk"],
    options: TaskOptions,
    group: Group,
    sizes: dict[Arrival, int],
    size: int,
    *,
    soon: bool = False,
) -> Arrival:
    from palpable.units.task import new_task_id

    request = TaskRequest(new_task_id(), form, pickled.key, payload, pickled.name)
    arrival = Arrival(request.task_id, group, is_chunk=form == "chunk")
    # Known before it is sent: an interrupt between the two then cancels a task that was never sent, which does no
    # harm.
    sizes[arrival] = size
    if soon:
        connection.submit(request, pickled.data, options, arrival)
    else:
        connection.add_task(request, pickled.data, options, arrival)
    return arrival


def _ids(arrivals: Iterable[Arrival]) -> list[str]:
    return [arrival.task_id for arrival in arrivals if not arrival.is_there()]


def _cancel(connection: Connection, arrivals: Iterable[Arrival]) -> None:
    with suppress(PalpableError):  # another error is on its way to the caller, and says more
        cancel_without_waiting(connection, _ids(arrivals))


class LazyMap:
    """An iterator over `function(param)` for params that are read only as far as needed.

    Close it, or drop it, and what it has submitted and not yielded is cancelled.

    Args:
        window: params that may be on their way, or done and not yielded; None: some for each worker.
        is_ordered: yield in the order of the params; else as they end.
    """

    def __init__(
        self,
        connection: Connection,
        function: Callable[[Any], Any],
        params: Iterable[Any],
        options: TaskOptions,
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
        is_ordered: bool = True,
    ) -> None:
        self._connection = connection
        self._pickled = dumps_function(function)
        self._source = iter(params)
        self._options = options
        self._is_ordered = is_ordered
        self._window = window
        self._ahead = TASKS_AHEAD_PER_WORKER * workers_of(connection)
        is_single = isolation_of(connection, options) == "task" and chunksize == "auto"
        self._form: Literal["call", "chunk"] = "call" if is_single else "chunk"
        self._is_adaptive = chunksize == "auto" and not is_single
        self._chunksize = 1 if chunksize == "auto" else chunksize
        self._chunk_max = CHUNK_MAX if window is None else max(1, window // self._ahead)
        self._group = Group()
        self._sizes: dict[Arrival, int] = {}
        self._in_flight = 0
        self._is_exhausted = False
        self._source_error: BaseException | None = None
        self._is_source_slow = False

    def results(self) -> Iterator[Any]:
        """Yield the results."""
        sizes = self._sizes
        try:
            while True:
                if not (self._is_source_slow and self._is_ready()):
                    self._fill()
                if not sizes:
                    break
                if not self._is_ready():
                    self._wait()
                arrival = self._take()
                report = arrival.report
                if report is None or report.outcome != "succeeded":
                    raise arrival.exception()
                values = result_of(report)
                self._adapt(report.elapsed_seconds, len(values) if arrival.is_chunk else 1)
                del arrival, report
                if self._form == "chunk":
                    values.reverse()
                    while values:
                        yield values.pop()
                else:
                    yield values
                    del values
            if self._source_error is not None:
                raise self._source_error
        finally:
            _cancel(self._connection, sizes)
            self._group = Group()

    def _is_ready(self) -> bool:
        if self._is_ordered:
            return next(iter(self._sizes)).is_there() if self._sizes else False
        return bool(self._group.arrived)

    def _take(self) -> Arrival:
        arrival = next(iter(self._sizes if self._is_ordered else self._group.arrived))
        self._in_flight -= self._sizes.pop(arrival, 0)
        self._group.arrived.pop(arrival, None)
        return arrival

    def _room(self) -> int:
        """How much more may be on its way: params if there is a window, else chunks."""
        return self._ahead - len(self._sizes) if self._window is None else self._window - self._in_flight

    def _fill(self) -> None:
        """Submit until the window is full."""
        limit = self._ahead if self._window is None else self._window
        if self._sizes and self._room() < max(1, limit // 4):
            return  # not one for each that was taken: a few at a time share a message
        while not self._is_exhausted and (
            not self._sizes or self._room() >= (1 if self._window is None else self._chunksize)
        ):
            chunk = self._read_chunk()
            if chunk:
                is_single = self._form == "call"
                payload = dumps_call((chunk[0],), {}) if is_single else dumps_params(chunk)
                _send_off(
                    self._connection,
                    self._pickled,
                    payload,
                    self._form,
                    self._options,
                    self._group,
                    self._sizes,
                    len(chunk),
                    soon=True,
                )
                self._in_flight += len(chunk)
            if self._is_source_slow and self._is_ready():
                return

    def _read_chunk(self) -> list[Any]:
        """Take the next params from the source: as many as make a chunk, but none more after it has been slow."""
        start = monotonic()
        chunk: list[Any] = []
        try:
            while len(chunk) < self._chunksize:
                step = min(64, self._chunksize - len(chunk)) if chunk and not self._is_source_slow else 1
                more = list(islice(self._source, step))
                chunk += more
                if len(more) < step:
                    self._is_exhausted = True
                    break
                self._is_source_slow = monotonic() - start > SLOW_SOURCE_SECONDS * (1 + len(chunk) / 64)
                if self._is_source_slow:
                    break
        except BaseException as error:
            self._is_exhausted = True
            if not isinstance(error, Exception):
                raise
            # Everything before it was given to us without an error: it is worked off first, then this is raised.
            self._source_error = error
        return chunk

    def _wait(self) -> None:
        arrivals = self._sizes
        if self._is_ordered:
            head = next(iter(arrivals))
            wait_for_tasks(self._connection, head.is_there, (self._group,), lambda: (head.task_id,))
        else:
            arrived = self._group.arrived
            wait_for_tasks(self._connection, lambda: bool(arrived), (self._group,), lambda: _ids(arrivals), needs="any")

    def _adapt(self, elapsed_seconds: float | None, size: int) -> None:
        """Let chunks grow until each takes a few milliseconds."""
        if not self._is_adaptive or elapsed_seconds is None or size < self._chunksize:
            return
        if elapsed_seconds < CHUNK_SECONDS / 2:
            self._chunksize = min(self._chunk_max, self._chunksize * 2)
        elif elapsed_seconds > CHUNK_SECONDS * 2:
            self._chunksize = max(1, self._chunksize // 2)
