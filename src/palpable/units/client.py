"""A client: runs functions and procedures in the tasks of a server."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from palpable._connection import address as addresses
from palpable._connection import inside, questions
from palpable._connection.checks import check_number, checked_names, checked_task_id, checked_task_ids
from palpable._connection.refusals import unknown_task
from palpable._wire.handshake import checked_authkey
from palpable._wire.messages import DrainServer, GetStatus, QuitServer, TaskInfo
from palpable._wire.payload import exception_of, result_of
from palpable.units.option_levels import OptionLevels, client_levels, task_id_for_key
from palpable.units.task import Task
from palpable.units.task_calls import TaskCalls
from palpable.units.task_exceptions import ServerUnreachable, UnknownTask
from palpable.units.task_options import CallOptionArguments, OptionArguments, takes_options
from palpable.units.task_response import TaskResponse
from palpable.units.task_result import TaskResult

if TYPE_CHECKING:
    import ssl

    from palpable._connection.connection import Connection
    from palpable.procedures.procedure import Procedure

_remaking_locks = threading.RLock()
"""Held to give a client that came here by a fork a lock of its own. Reentrant: a signal handler may come between."""


def _renew_lock() -> None:
    """Another thread of the process that forked this one may have held it."""
    global _remaking_locks
    _remaking_locks = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_lock)


class _Calls(TaskCalls):
    """What a client and a client with options share."""

    def run_procedure(self, procedure: Procedure, waiting_seconds: float | None = 1) -> TaskResult:
        """Run `procedure.run(messenger)` in a task; return its result, or what there is after `waiting_seconds`.

        Args:
            waiting_seconds: wait so long at most; then `is_successful` of the result is None, the task goes on, and
                `query_result` gives its result later. 0: return at once. Below 0, or None: wait until the end.

        Raises:
            NotPicklable, PayloadTooLarge, ServerUnreachable: nothing was submitted, or it is not known whether.
        """
        seconds = _checked_wait(waiting_seconds)
        task = Task(procedure)
        connection, options = self._get_connection(), self._levels.plain
        if options.idempotency_key:
            task.task_id = task_id_for_key(options.idempotency_key)
        self._submit_procedure(connection, task, None, options, needs_exit=True)
        if seconds == 0:
            connection.flush()
            return TaskResult(task.task_id, None, None)
        (report,) = questions.query_results(connection, [task.task_id], seconds)
        if report is None:
            raise UnknownTask(f"the server has dropped task {task.task_id} at once", task_id=task.task_id)
        return TaskResult.from_report(report)

    def ajax_run_procedure(self, procedure: Procedure, waiting_seconds: float | None = 1) -> TaskResponse:
        """As `run_procedure`, as a dict for a web view. Never raises: an error is a response too."""
        task_id: str | None = None
        try:
            result = self.run_procedure(procedure, waiting_seconds)
            task_id = result.task_id
            return TaskResponse.from_result(task_id, result)
        except Exception as error:
            return TaskResponse.from_error(task_id, error)


class Client(_Calls):
    """A client of one server. Usable from every thread, and in a forked process, where it makes its own connection.

    It connects at its first call, and all calls share the connection. When that breaks, the client connects again and
    goes on: nothing is submitted twice, and what is waited for arrives, if the server is still there or comes back.
    Inside a task, waiting for other tasks frees the task's slot; `Client()` there is a client of the task's own server.

    Args:
        address: ("127.0.0.1", 8089), the path of a Unix socket, or a URL (unix:///path, tcp://host:port,
            tls://host:port). None: $PALPABLE_URL, else the user's default server, as `palpable serve` starts it.
        family: "AF_INET" or "AF_UNIX"; None: what fits the address.
        authkey: the server's key, bytes. None: $PALPABLE_AUTHKEY, else the file $PALPABLE_AUTHKEY_FILE, else, for a
            Unix socket, the file `authkey` beside it.
        tls: for TCP. True: trust what this machine trusts; the path of a certificate file: trust this certificate, or
            what this authority has signed; or an `ssl.SSLContext`.
        reconnect_seconds: how long to try to connect again, before calls fail with ServerUnreachable. None: a minute if
            the server keeps its tasks on disk; else once, at once, since a server that ended has forgotten them. 0:
            never.
        **options: for all the tasks of this client, if neither the call nor the function says otherwise: isolation,
            timeout_seconds, priority, ends_with_client (cancel the tasks of this client when its connection closes),
            retries and what goes with it, delay_seconds, at, name, tags; each as in `options`.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range; the message names it.

    Example:
        >>> with Client(("127.0.0.1", 8089), "AF_INET", b"key") as client:  # doctest: +SKIP
        ...     client.map(abs, [-1, -2])
        [1, 2]
    """

    @takes_options
    def __init__(
        self,
        address: tuple[str, int] | str | os.PathLike[str] | None = None,
        family: str | None = None,
        authkey: bytes | None = None,
        *,
        tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
        reconnect_seconds: float | None = None,
        **options: Unpack[OptionArguments],
    ) -> None:
        self._address = None if address is None else addresses.make_address(address, family)
        self._family = family
        self._authkey = None if authkey is None else checked_authkey(authkey)
        self._tls = tls
        if tls is not None and tls is not False:
            from palpable._connection.dialing import check_tls

            check_tls(self._address or addresses.Address(host="any"), tls)
        self._levels = client_levels(options)
        check_number("reconnect_seconds", reconnect_seconds, least=0, may_be_none=True)
        self._reconnect_seconds = reconnect_seconds
        self._forget_connection()

    # --- the connection -------------------------------------------------------------------------------------------

    def _forget_connection(self) -> None:
        self._connection: Connection | None = None
        self._connecting = (os.getpid(), threading.RLock())
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._is_closed = False

    def _get_connection(self) -> Connection:
        self._check_open()
        connection = self._connection
        if connection is not None and not connection.is_stale():
            return connection
        if self._address is None and self._authkey is None:
            messenger = inside.current_messenger()
            if messenger is not None:
                return messenger._get_connection()
        return self._connect()

    def _connect(self) -> Connection:
        with _remaking_locks:
            if self._connecting[0] != os.getpid():
                # Forked: the thread that held the lock may not exist here.
                self._connecting = (os.getpid(), threading.RLock())
        with self._connecting[1]:
            self._check_open()
            last = self._connection
            if last is not None and not last.is_stale():
                return last  # another thread was faster
            connection = self._dial(last)
            if connection is last:
                return connection
            # Neither the connection nor its thread holds the client, so a client that is dropped is collected.
            finalizer = weakref.finalize(self, connection.close_when_idle)
            finalizer.atexit = False
            if self._connection is not last:  # a signal handler, which this thread's hold on the lock does not stop
                finalizer.detach()
                connection.close(wait=False)
                return self._connect()
            # No call from the look to the end of this line, so that no signal handler comes between.
            self._connection, self._finalizer, last_finalizer = connection, finalizer, self._finalizer
            if last_finalizer is not None:
                last_finalizer.detach()
            if last is not None:
                last.close(wait=False)
            # Who against whom: we, who may have dialled for long, against `close` on another thread. We enter the
            # connection and then look whether the client is closed, `close` does the reverse. So one sees the other.
            if self._is_closed:
                connection.close(wait=False)
            self._check_open()
            return connection

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServerUnreachable("this client is closed; make a new one")

    def _dial(self, last: Connection | None) -> Connection:
        """Return `last` over a new socket, or a new connection."""
        from palpable._connection.dialing import check_tls, connection_over, prove, resolve_again
        from palpable._connection.reconnecting import Again, dial_patiently, seconds_to_try

        given, tls = (self._address, self._family, self._authkey), self._tls

        def connect_once() -> Connection:
            address, authkey = addresses.resolve(*given)
            proven = prove(address, authkey, check_tls(address, tls))
            # Others may be about to use the last one, so it is to go on, if it can.
            if last is not None and last.resume(proven):
                return last
            # Holds not the client: the connection outlives it, until what it submitted has ended.
            again = Again(lambda: prove(*resolve_again(*given, tls)), self._reconnect_seconds)
            return connection_over(proven, address, again)

        if last is None or last.is_inside_task:
            return connect_once()
        # A durable server may be about to come back.
        seconds = seconds_to_try(self._reconnect_seconds, last.info)
        return dial_patiently(connect_once, seconds, is_over=lambda: self._is_closed)

    def close(self) -> None:
        """Close the connection; the client can't be used any more. Safe to call twice.

        Tasks go on (unless submitted to end with their client); futures that are pending fail with ServerUnreachable.
        """
        self._is_closed = True  # first: see `_connect`
        connection = self._connection
        if connection is not None and connection.is_usable:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A client that travels into a task is sent without its connection; there it makes its own."""
        state = self.__dict__.copy()
        for name in ("_connection", "_connecting", "_finalizer", "_is_closed"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_connection()

    def __repr__(self) -> str:
        where = "the default server" if self._address is None else self._address.url
        return f"<{type(self).__qualname__} of {where}>"

    # --- options --------------------------------------------------------------------------------------------------

    @takes_options
    def options(self, **options: Unpack[CallOptionArguments]) -> ClientView:
        """Return a view of this client whose `submit`, `run`, `map`, `imap` and `run_procedure` use these options.

        What is left out stays as it is; None stands for the default.

        Args:
            isolation: "task", a fresh process for every task, or "worker", processes that run many; None: the server's
                default.
            timeout_seconds: what an attempt may take, above 0; None: the server's default.
            priority: higher runs earlier; from -2**31 to 2**31 - 1.
            ends_with_client: cancel the tasks when the connection of this client closes.
            retries: further attempts after one that raised or timed out, 0 to 1000.
            backoff_seconds: the wait before the first retry, at most, 0 to 86400; it doubles with each, and is drawn
                at random from 0 up to that. Without it: 1.
            max_backoff_seconds: the wait before any retry, at most, 0 to 86400. Without it: 300.
            retry_on: retry only after errors of this class, or of one of these classes, or of their subclasses; None:
                after any.
            crash_retries: further attempts after one whose process died, 0 to 1000.
            at_most_once: never run again what may have run: after a crash of the server the task ends as lost.
            delay_seconds: not before this long after the server got the task, 0 to 1e9.
            at: not before this moment: a datetime (local time, if it has no zone), or seconds since the epoch.
            idempotency_key: the same key is the same task: submitted again, it is not run again, and gives the result
                it gave. For `submit`, `run` and `run_procedure`.
            name: shown in place of the function's name.
            tags: strings shown with the task, and looked for in lists.

        Raises:
            TypeError, ValueError: there is no such option, or its value is out of range; the message names it.

        Example:
            >>> client.options(isolation="worker", timeout_seconds=5).map(abs, [-1])  # doctest: +SKIP
            [1]
        """
        return ClientView(self, self._levels.nearer(options))

    # --- questions ------------------------------------------------------------------------------------------------

    def query_result(self, task_id: str, *, keep: bool = False) -> TaskResult | None:
        """Return how a task stands, at once.

        None: the server knows no such task: it never did, or its result expired or was taken. `is_successful` None:
        it is queued or runs. Otherwise it has ended, and its result is removed from the server, unless `keep` says
        otherwise.
        """
        task_id = checked_task_id(task_id)
        (report,) = questions.query_results(self._get_connection(), [task_id], take=not keep)
        return None if report is None else TaskResult.from_report(report)

    def ajax_query_result(self, task_id: str) -> TaskResponse:
        """As `query_result`, as a dict for a web view. Never raises: an error is a response too."""
        try:
            return TaskResponse.from_result(task_id, self.query_result(task_id))
        except Exception as error:
            return TaskResponse.from_error(task_id, error)

    def result(self, task_id: str, timeout_seconds: float | None = None) -> Any:
        """Wait for a task, and return what it returned; raises what it raised. The server keeps the result.

        Args:
            timeout_seconds: wait so long at most; None: until the end.

        Raises:
            TimeoutError: it has not ended in that time.
            UnknownTask: the server knows no such task.
        """
        task_id = checked_task_id(task_id)
        check_number("timeout_seconds", timeout_seconds, least=0, may_be_none=True)
        wait_seconds = -1.0 if timeout_seconds is None else float(timeout_seconds)
        (report,) = questions.query_results(self._get_connection(), [task_id], wait_seconds, take=False)
        if report is None:
            raise unknown_task(task_id)
        if not report.outcome:
            raise TimeoutError(f"task {task_id} has not ended within {timeout_seconds:g} s")
        if report.outcome != "succeeded":
            raise exception_of(report)
        return result_of(report)

    def cancel(self, task_id: str) -> bool:
        """End a task, queued or running; return whether that was done. False: it had ended, or is not known."""
        task_id = checked_task_id(task_id)
        return questions.cancel_tasks(self._get_connection(), [task_id])[0]

    def retry(self, task_ids: Sequence[str]) -> list[str | None]:
        """Submit again what these tasks ran, each as a new task; return the new ids, in the same order.

        They have the options of the old ones, but no `idempotency_key` and no `ends_with_client`, and run at once: what
        was delayed (`at`, `delay_seconds`) is not delayed again. The old task stays as it ended. None: it can't be
        retried. Only what failed or was cancelled, and is still kept, can.

        Raises:
            ServerDraining: the server accepts nothing new.
        """
        task_ids = checked_task_ids(task_ids)
        return [new_id or None for new_id in questions.retry_tasks(self._get_connection(), task_ids)]

    def purge(self, state: str | Sequence[str] | None = None, older_than_seconds: float = 0.0) -> int:
        """Remove tasks that have ended, with their results and output; return how many.

        Args:
            state: only those in this final state, or in one of these; None: all that have ended.
            older_than_seconds: only those that ended at least so long ago.

        Raises:
            ValueError: a state that is not final.
        """
        check_number("older_than_seconds", older_than_seconds, least=0)
        states = checked_names("state", state)
        return questions.purge_tasks(self._get_connection(), states, float(older_than_seconds))

    @overload
    def logs(self, task_id: str, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(self, task_id: str, follow: Literal[True]) -> Iterator[str]: ...
    @overload
    def logs(self, task_id: str, follow: bool) -> str | Iterator[str]: ...
    def logs(self, task_id: str, follow: bool = False) -> str | Iterator[str]:
        """Return what a task printed; with `follow` an iterator that goes on until it has ended.

        Raises:
            UnknownTask: the server knows no such task.
        """
        task_id = checked_task_id(task_id)
        connection = self._get_connection()
        return questions.follow_logs(connection, task_id) if follow else questions.read_logs(connection, task_id)

    def tasks(
        self, state: str | Sequence[str] | None = None, limit: int = 1000, *, tags: str | Sequence[str] | None = None
    ) -> list[TaskInfo]:
        """Return the tasks the server knows, newest first.

        Args:
            state: only those in this state, or in one of these; None: all.
            limit: so many at most.
            tags: only those that have this tag, or all of these.
        """
        limit = check_number("limit", limit, least=0, is_whole=True)
        states, all_tags = checked_names("state", state), checked_names("tags", tags)
        return list(questions.each_task(self._get_connection(), states, tags=all_tags, limit=int(limit)))

    def get_status(self) -> dict[str, Any]:
        """Return how the server is: `worker_status`, `task_queue_size`, `result_cache_size` and more."""
        answer = self._get_connection().answer_to(lambda request_id: GetStatus(request_id=request_id))
        status: dict[str, Any] = answer.status
        return status

    def drain(self, is_on: bool = True) -> None:
        """Have the server start nothing more, but for what running tasks wait for; or do so again.

        New tasks are refused meanwhile with `ServerDraining`. `get_status()["is_draining"]` says whether it drains.
        """
        if not isinstance(is_on, bool):
            raise TypeError(f"is_on must be True or False, not {is_on!r}")
        self._get_connection().answer_to(lambda request_id: DrainServer(request_id=request_id, is_on=is_on))

    def quit(self, drain_seconds: float | None = None) -> None:
        """Stop the server. Returns when it knows; called again, the shorter time counts.

        Args:
            drain_seconds: what runs may take so long to end. What does not is killed: a server with a store runs it
                again when it is started again, for another it fails with `TaskKilledByQuitSignal`. None: at once.
        """
        check_number("drain_seconds", drain_seconds, least=0, may_be_none=True)
        seconds = None if drain_seconds is None else float(drain_seconds)
        self._get_connection().answer_to(lambda request_id: QuitServer(request_id=request_id, drain_seconds=seconds))


class ClientView(_Calls):
    """A client with options of its own. Made by `Client.options`; shares the client's connection."""

    def __init__(self, client: Client, levels: OptionLevels) -> None:
        self._client = client
        self._levels = levels

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} of {self._client!r}>"

    def _get_connection(self) -> Connection:
        return self._client._get_connection()

    @takes_options
    def options(self, **options: Unpack[CallOptionArguments]) -> ClientView:
        """As `Client.options`, on top of the options of this view."""
        return ClientView(self._client, self._levels.nearer(options))


def _checked_wait(waiting_seconds: float | None) -> float:
    check_number("waiting_seconds", waiting_seconds, may_be_none=True)
    return -1.0 if waiting_seconds is None or waiting_seconds < 0 else min(float(waiting_seconds), 1e9)
