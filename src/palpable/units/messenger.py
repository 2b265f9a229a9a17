"""A task's line to its server: logging, progress, sub-tasks."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from palpable._connection import inside
from palpable._wire.messages import TaskProgressed, TaskSaid
from palpable._wire.sendable_text import sendable

if TYPE_CHECKING:
    from typing import Unpack

    from palpable._connection.connection import Connection
    from palpable._connection.waiting import ResultTaker
    from palpable._wire.messages import Message
    from palpable.procedures.procedure import Procedure
    from palpable.units.option_levels import OptionLevels
    from palpable.units.task import Task
    from palpable.units.task_calls import TaskCalls
    from palpable.units.task_future import TaskFuture
    from palpable.units.task_options import CallOptionArguments
    from palpable.units.task_result import TaskResult

T = TypeVar("T")


class Messenger:
    """Passed to `Procedure.run`; any other function in the task gets it from `current_task()`.

    Attributes:
        task_id: of this task.
        name: of this task, as lists show it.
        attempt: which run of the task this is, from 1.
        deadline: when it will be ended, on the clock of `time.monotonic`; None: never.
    """

    # As attributes of the class they cost a small task nothing.
    _levels: OptionLevels | None = None
    _made_calls: TaskCalls | None = None

    def __init__(
        self,
        task_id: str,
        attempt: int = 1,
        deadline: float | None = None,
        name: str = "",
        get_connection: Callable[[], Connection] | None = None,
        send: Callable[[Message], None] | None = None,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.deadline = deadline
        self.name = name
        self._connection_maker = get_connection
        self._send = send

    @property
    def remaining_seconds(self) -> float | None:
        """How long the task may still run; None: no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    # --- saying ---------------------------------------------------------------------------------------------------

    def debug(self, message: object) -> None:
        """Log a message, in the task's log and in the server's log files."""
        self._say("DEBUG", str(message))

    def info(self, message: object) -> None:
        """Log a message, in the task's log and in the server's log files."""
        self._say("INFO", str(message))

    def warning(self, message: object) -> None:
        """Log a message, in the task's log and in the server's log files."""
        self._say("WARNING", str(message))

    def error(self, message: object) -> None:
        """Log a message, in the task's log and in the server's log files."""
        self._say("ERROR", str(message))

    def print(self, *args: object, sep: str | None = " ", end: str | None = "\n") -> None:
        """Print to the task's log and to the server's log files."""
        text = io.StringIO()
        print(*args, sep=sep, end=end, file=text)
        self._say("PRINT", text.getvalue())

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far the task is: seen by `TaskFuture.progress` and in lists.

        Raises:
            TypeError, ValueError: `done` or `total` is no number, or below 0.
        """
        from palpable._connection.checks import check_number

        check_number("done", done, least=0)
        check_number("total", total, least=0)
        if self._send is not None:
            note = sendable(str(note))
            self._send(TaskProgressed(task_id=self.task_id, done=float(done), total=float(total), note=note))

    def _say(self, level: str, text: str) -> None:
        if self._send is not None:
            self._send(TaskSaid(task_id=self.task_id, level=level, text=sendable(text)))

    # --- sub-tasks ------------------------------------------------------------------------------------------------

    def options(self, **options: Unpack[CallOptionArguments]) -> Messenger:
        """Return this messenger with options for the sub-tasks submitted through it. As `Client.options`.

        A sub-task has none of the options of the task that submits it.

        Example:
            >>> messenger.options(retries=3).map(abs, [-1, -2])  # doctest: +SKIP
            [1, 2]
        """
        from palpable.units.option_levels import OptionLevels

        view = Messenger(self.task_id, self.attempt, self.deadline, self.name, self._connection_maker, self._send)
        view._levels = (self._levels or OptionLevels({})).nearer(options)
        return view

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Submit `function(*args, **kwargs)` as a sub-task; return its future. As `Client.submit`."""
        return self._calls.submit(function, *args, **kwargs)

    def run(self, function: Callable[[Any], T], params: Any) -> T:
        """Return `function(params)`, called in a sub-task. As `Client.run`."""
        return self._calls.run(function, params)

    def map(
        self, function: Callable[[Any], T], params: Iterable[Any], *, chunksize: int | Literal["auto"] = "auto"
    ) -> list[T]:
        """Return `[function(param) for param in params]`, called in sub-tasks. As `Client.map`."""
        return self._calls.map(function, params, chunksize=chunksize)

    def imap(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any],
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
    ) -> Generator[T, None, None]:
        """Yield the results of sub-tasks, in order, as they come. As `Client.imap`."""
        return self._calls.imap(function, params, window=window, chunksize=chunksize)

    def imap_unordered(
        self,
        function: Callable[[Any], T],
        params: Iterable[Any],
        *,
        window: int | None = None,
        chunksize: int | Literal["auto"] = "auto",
    ) -> Generator[T, None, None]:
        """Yield the results of sub-tasks as they come. As `Client.imap_unordered`."""
        return self._calls.imap_unordered(function, params, window=window, chunksize=chunksize)

    def run_procedure(self, procedure: Procedure) -> Any:
        """Run a procedure in a sub-task, wait, and return its data; raises what it raises."""
        from palpable._connection.shared_taker import submit_shared
        from palpable._connection.task_waits import wait_for_tasks
        from palpable._connection.waiting import Arrival, Group
        from palpable._wire.payload import result_of
        from palpable.units.option_levels import task_id_for_key
        from palpable.units.task import Task

        task = Task(procedure, is_source_blocking=True)
        connection, options, group = self._get_connection(), self._calls._levels.plain, Group()
        if options.idempotency_key:
            task.task_id = task_id_for_key(options.idempotency_key)
        arrival = Arrival(task.task_id, group)

        def submit(taker: ResultTaker) -> None:
            self._calls._submit_procedure(connection, task, taker, options, needs_exit=False)

        if options.idempotency_key:
            submit_shared(connection.pending.takers, task.task_id, arrival, submit)
        else:
            submit(arrival)
        wait_for_tasks(connection, arrival.is_there, (group,), lambda: (task.task_id,))
        if group.first_failed is not None:
            try:
                raise arrival.exception()
            finally:
                del arrival, group  # the traceback holds this frame
        assert arrival.report is not None
        return result_of(arrival.report)

    def submit_tasks(self, tasks: Iterable[Task], need_followup: bool = False) -> list[str]:
        """Submit tasks, and return their ids. Does not wait: ask for the results by `query_results`.

        Args:
            tasks: whose procedures are to run.
            need_followup: list them in `followup_task_ids` of this task's result.
        """
        import msgspec

        from palpable.units.option_levels import check_has_no_key

        connection, calls = self._get_connection(), self._calls
        options = calls._levels.plain
        check_has_no_key(options)
        if need_followup:
            options = msgspec.structs.replace(options, is_followup=True)
        task_ids = []
        for task in tasks:
            calls._submit_procedure(connection, task, None, options, needs_exit=False)
            task_ids.append(task.task_id)
        connection.flush()
        return task_ids

    def query_results(self, task_ids: Sequence[str]) -> list[TaskResult | None]:
        """Return how tasks stand, at once, in the order asked; the rules are those of `Client.query_result`."""
        from palpable._connection.checks import checked_task_ids
        from palpable._connection.questions import query_results
        from palpable.units.task_result import TaskResult

        reports = query_results(self._get_connection(), checked_task_ids(task_ids))
        return [None if report is None else TaskResult.from_report(report) for report in reports]

    def _get_connection(self) -> Connection:
        if self._connection_maker is None:
            raise RuntimeError("this messenger has no server: it was made outside of a task")
        return self._connection_maker()

    @property
    def _calls(self) -> TaskCalls:
        # Made late: most tasks submit nothing, and these modules would enlarge their process.
        if self._made_calls is None:
            from palpable.units.task_calls import TaskCalls

            class Calls(TaskCalls):
                _get_connection = staticmethod(self._get_connection)

            self._made_calls = Calls()
            if self._levels is not None:
                self._made_calls._levels = self._levels
        return self._made_calls

    def __repr__(self) -> str:
        return f"<Messenger of task {self.task_id}>"


def current_task() -> Messenger:
    """Return the messenger of the task this code runs in.

    Raises:
        RuntimeError: it runs in no task.
    """
    messenger = inside.inherited_messenger()
    if messenger is None:
        raise RuntimeError("current_task() was called outside of a task: this process runs none")
    return messenger


def set_current_task(messenger: Messenger | None) -> None:
    """Say which task this process runs from now on. Not for a process that runs many, which says so by itself."""
    inside.set_current_messenger(messenger)
