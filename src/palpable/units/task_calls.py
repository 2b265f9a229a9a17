"""The calls that run functions in tasks: the same for a client, a client with options, and a task's messenger."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

from msgspec.structs import replace

from palpable._connection import bulk
from palpable._connection.checks import check_number
from palpable._connection.lazy_map import lazy_map
from palpable._connection.result_stream import ResultStream
from palpable._connection.shared_taker import submit_shared
from palpable._wire.messages import TaskOptions, TaskRequest
from palpable._wire.payload import dumps_call, dumps_function, dumps_procedure, name_of
from palpable.units.option_levels import OptionLevels, check_has_no_key, task_id_for_key
from palpable.units.task import Task, new_task_id
from palpable.units.task_future import TaskFuture

if TYPE_CHECKING:
    from palpable._connection.connection import Connection

P = ParamSpec("P")
T = TypeVar("T")


def check_chunksize(chunksize: Any) -> int | Literal["auto"]:
    """Return the `chunksize` of a call, checked."""
    if isinstance(chunksize, str) and chunksize == "auto":
        return "auto"
    size: int = check_number("chunksize", chunksize, least=1, is_whole=True, meaning='or "auto"')
    return size


def check_callable(function: Any) -> None:
    """Check the function of a call."""
    if not callable(function):
        raise TypeError(f"the first argument must be a function, not {function!r}")


def count_of(params: Any) -> int | None:
    """Return how many params there are, for a progress bar; None if that is not known, or too many to be counted."""
    try:
        return len(params) if hasattr(params, "__len__") else None
    except OverflowError:
        return None


class TaskCalls:
    """`submit`, `run`, `map`, `imap`, `imap_unordered`, `run_procedure` over a connection.

    Subclasses say which connection (`_get_connection`), and with which options (`_levels`).
    """

    _levels = OptionLevels({})

    def _get_connection(self) -> Connection:
        raise NotImplementedError

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit `function(*args, **kwargs)` as a task, and return its future at once.

        The result is for the future: once this client has it, the server lets go of it, and knows the task no more.

        Raises:
            NotPicklable: the function or an argument can't be sent; the message says which.
            PayloadTooLarge: they are larger than the server accepts.
            ServerUnreachable: there is no server.

        Example:
            >>> future = client.submit(pow, 2, 10)  # doctest: +SKIP
            >>> future.result()  # doctest: +SKIP
            1024
        """
        key, data, name = dumps_function(function)
        payload = dumps_call(args, kwargs)
        connection = self._get_connection()
        options = self._levels.of(function)
        if options.idempotency_key:
            return self._submit_keyed(connection, options, TaskRequest("", "call", key, payload, name), data)
        task_id = new_task_id()
        future: TaskFuture[T] = TaskFuture(task_id, connection)
        connection.submit(TaskRequest(task_id, "call", key, payload, name), data, options, future)
        return future

    def run(self, function: Callable[[Any], T], params: Any) -> T:
        """Return `function(params)`, called in a task; raises what it raises.

        A Ctrl-C while it waits ends the task, unless the task has an `idempotency_key`: then others may wait for it.

        Raises:
            As `submit`; and `TaskDidNotFinish`, e.g. `TaskCrashed` or `TaskTimeout`.
        """
        check_callable(function)
        options = self._levels.of(function)
        task_id = task_id_for_key(options.idempotency_key) if options.idempotency_key else new_task_id()
        return cast(T, bulk.call_one(self._get_connection(), function, params, options, task_id))

    def map(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any],
        *,
        chunksize: int | Literal["auto"] = "auto",
        progress: bool = False,
    ) -> list[T]:
        """Return `[function(param) for param in params]`, each called in a task.

        The first failure is raised, as its own type, and the tasks that have not ended are cancelled; so does a
        Ctrl-C. All params are read first.

        Args:
            chunksize: params that travel and run together. "auto": with isolation "task" each is a task of its own,
                with "worker" there are four chunks for each worker, or a hundred in all with a progress bar.
            progress: show a progress bar, on a terminal or in a notebook; nothing where stderr is no terminal.
        """
        check_callable(function)
        chunksize = check_chunksize(chunksize)
        options = self._levels.of(function)
        check_has_no_key(options)
        # A range or a tuple need not be copied as a whole: the first chunk leaves that much sooner.
        listed = params if isinstance(params, list | range | tuple) else list(params)
        if not listed:
            return []
        with bar_for(progress, function, len(listed)) as on_progress:
            return bulk.map_all(self._get_connection(), function, listed, options, new_task_id, chunksize, on_progress)

    def imap(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any],
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
        progress: bool = False,
    ) -> Generator[T, None, None]:
        """Yield `function(param)` for each of `params`, in order, as they come; `params` may be endless.

        It reads no further ahead than `window`. Closing or dropping the generator cancels what it has submitted. An
        error of the function, or of `params`, is raised in its place, and ends it. Threads may share it: each result
        goes to one of them.

        Args:
            window: tasks that may be under way, or done and not yielded, at most; None: four for each worker. A chunk
                is one task, as in `Executor.map` with `buffersize` and `chunksize`: up to `window` times `chunksize`
                params are read ahead. With `chunksize=1` it counts params.
            chunksize: params that travel and run together. "auto": with isolation "worker" as many as take a few
                milliseconds, else one. They begin with one, and grow to 4096 at most. Of such chunks no more are
                under way than keep the workers busy, also in a large window, so that they have the right size. If one
                of a chunk's calls raises, those before it are yielded first; if the process dies, or is ended, the
                whole chunk is lost.
            progress: show a progress bar, as `map` does; it counts what was yielded.
        """
        return self._imap(function, params, window, chunksize, progress, is_ordered=True)

    def imap_unordered(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any],
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
        progress: bool = False,
    ) -> Generator[T, None, None]:
        """As `imap`, but yield each result as soon as it is there, in any order."""
        return self._imap(function, params, window, chunksize, progress, is_ordered=False)

    def _imap(
        self, function: Any, params: Any, window: Any, chunksize: Any, progress: bool, *, is_ordered: bool
    ) -> Generator[Any, None, None]:
        # Checked here, in the call itself; the generator runs only when it is asked for its first result.
        check_callable(function)
        window = check_number("window", window, least=1, is_whole=True, may_be_none=True)
        chunksize = check_chunksize(chunksize)
        options = self._levels.of(function)
        check_has_no_key(options)
        source = iter(params)
        total = count_of(params) if progress else None

        def batches() -> Generator[list[Any], None, None]:
            yield from lazy_map(
                self._get_connection(),
                function,
                source,
                options,
                new_task_id,
                window=window,
                chunksize=chunksize,
                is_ordered=is_ordered,
            )

        def counted() -> Generator[Any, None, None]:
            with bar_for(True, function, total) as on_progress, closing(ResultStream(batches())) as values:
                for count, value in enumerate(values, 1):
                    if on_progress is not None:
                        on_progress(count)
                    yield value

        return counted() if progress else ResultStream(batches())

    def _submit_keyed(
        self, connection: Connection, options: TaskOptions, request: TaskRequest, data: bytes
    ) -> TaskFuture[Any]:
        request = replace(request, task_id=task_id_for_key(options.idempotency_key))
        future: TaskFuture[Any] = TaskFuture(request.task_id, connection)
        submit_shared(
            connection.pending.takers,
            request.task_id,
            future,
            lambda taker: connection.submit(request, data, options, taker),
        )
        return future

    def _submit_procedure(
        self, connection: Connection, task: Task, taker: Any, options: TaskOptions, *, needs_exit: bool
    ) -> None:
        procedure = task.procedure
        request = TaskRequest(task.task_id, "procedure", "", dumps_procedure(procedure), name_of(type(procedure)))
        connection.add_task(request, b"", options, taker, needs_exit=needs_exit)


def bar_for(is_wanted: bool, function: Any, total: int | None) -> AbstractContextManager[Callable[[int], None] | None]:
    """Show a progress bar while the body runs, if one is wanted. Gives what to call with the number that is done."""
    if not is_wanted:
        return nullcontext()
    from palpable._connection.progress_bar import progress_bar

    return progress_bar(name_of(function), total)
