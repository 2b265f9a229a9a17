"""A server in a thread of the test: speaks the protocol, runs tasks in that thread, does what the test says.

What it does not have: processes, slots, timeouts, retention. Contract tests run against it and the real one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.handshake import HandshakeToServer, ServerHandshake
from palpable._wire.messages import (
    BeginWait,
    CancelTasks,
    ClientRequest,
    Done,
    GetStatus,
    ListTasks,
    LogChunk,
    QueryResults,
    QuitServer,
    ReadLogs,
    RequestFailed,
    ResultsFound,
    ResultsPushed,
    ResultsReceived,
    ResultsWatched,
    StatusReport,
    SubmitTasks,
    TaskInfo,
    TaskList,
    TaskReport,
    TaskRequest,
    TasksAccepted,
    TasksCancelled,
    WaitOver,
    WatchResults,
)
from palpable._wire.payload import dumps_exception, dumps_result, loads


class Conversation:
    """The server's side of one connection."""

    def __init__(self, server: FakeServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.functions: dict[str, bytes] = {}
        self.sequence = 0
        self.taken: dict[int, list[str]] = {}
        self.inside_task = ""
        self._sending = threading.Lock()

    def send(self, *messages: Any) -> None:
        with self._sending, contextlib.suppress(OSError):
            self.sock.sendall(b"".join(encode_frame(message) for message in messages))

    def next_sequence(self, task_ids: list[str]) -> int:
        self.sequence += 1
        self.taken[self.sequence] = task_ids
        return self.sequence


class FakeServer:
    """Listens at `address`, a Unix socket, from `start` to `close`.

    Attributes:
        received: every request, in the order of arrival.
        executed: the ids of the tasks that have run.
        hooks: by request type: called with (conversation, request) before the server does anything; returns True if it
            is to do nothing.
        is_holding: tasks are accepted, and run only when `release` is called.
        task_token: what it gives its tasks; by it a client shows that it speaks from inside one.
    """

    def __init__(self, folder: Path, authkey: bytes = b"key", **info: Any) -> None:
        self.address = str(folder / "fake.sock")
        self.authkey = authkey
        self.info = {"num_workers": 2, "isolation": "task", "server_id": "fake", "pid": 0, **info}
        self.received: list[Any] = []
        self.hooks: dict[type, Callable[[Conversation, Any], bool | None]] = {}
        self.conversations: list[Conversation] = []
        self.is_holding = False
        self.task_token = "token"
        self.reports: dict[str, TaskReport] = {}
        self.executed: list[str] = []
        self._held: list[tuple[Conversation, list[TaskRequest]]] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._seen: set[str] = set()
        self._watchers: dict[str, Conversation] = {}
        """By task: who gets the result."""
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> FakeServer:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen(64)
        self._run(self._accept, self._listener)
        return self

    def close(self) -> None:
        """Close everything, as a server that ends does; it can be started again."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            Path(self.address).unlink()
            self._threads[0].join(10)  # so that no connection comes after those that are ended now
        self.drop_connections()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._threads.clear()

    def drop_connections(self) -> None:
        """End every connection without a word."""
        # The next ones come while these are ended, and stay.
        with self._changed:
            ended, self.conversations = self.conversations, []
            self._changed.notify_all()
        for conversation in ended:
            with contextlib.suppress(OSError):
                conversation.sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> FakeServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def received_of(self, kind: type) -> list[Any]:
        """The requests of one type."""
        return [request for request in self.received if isinstance(request, kind)]

    def hold(self) -> None:
        """Run nothing until `release`."""
        self.is_holding = True

    def release(self) -> None:
        """Run what was held, and run the next ones at once."""
        with self._lock:
            held, self._held, self.is_holding = self._held, [], False
        for conversation, tasks in held:
            self._run_tasks(conversation, tasks)

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            conversation = Conversation(self, sock)
            self.conversations.append(conversation)
            self._run(self._converse, conversation)

    def _converse(self, conversation: Conversation) -> None:
        with conversation.sock:
            try:
                if self._shake_hands(conversation):
                    for request in self._messages(conversation, ClientRequest):
                        self.received.append(request)
                        hook = self.hooks.get(type(request))
                        if hook is None or not hook(conversation, request):
                            self._handle(conversation, request)
            except OSError:
                return  # the client is gone

    def _shake_hands(self, conversation: Conversation) -> bool:
        handshake = ServerHandshake(self.authkey, self.info, self.task_token)
        for message in self._messages(conversation, HandshakeToServer):
            conversation.send(handshake.answer(message))
            conversation.inside_task = handshake.inside_task
            if handshake.is_refused or handshake.is_done:
                return handshake.is_done
        return False

    def _messages(self, conversation: Conversation, kind: Any) -> Iterator[Any]:
        reader: FrameReader[Any] = FrameReader(kind)
        while data := conversation.sock.recv(1 << 16):
            yield from reader.feed(data)

    # --- requests -------------------------------------------------------------------------------------------------

    def _handle(self, conversation: Conversation, request: Any) -> None:
        if isinstance(request, SubmitTasks):
            self._submit(conversation, request)
        elif isinstance(request, ResultsReceived):
            for sequence in [one for one in conversation.taken if one <= request.sequence]:
                for task_id in conversation.taken.pop(sequence):
                    self.reports.pop(task_id, None)
        elif isinstance(request, QueryResults):
            self._run(self._query, conversation, request)
        elif isinstance(request, WatchResults):
            self._watch(conversation, request)
        elif isinstance(request, BeginWait):
            self._run(self._begin_wait, conversation, request)
        elif isinstance(request, CancelTasks):
            self._cancel(conversation, request)
        elif isinstance(request, ReadLogs):
            is_known = request.task_id in self.reports
            data = f"output of {request.task_id}\n".encode() if is_known else b""
            conversation.send(LogChunk(request_id=request.request_id, data=data, is_last=True, is_known=is_known))
        elif isinstance(request, ListTasks):
            found = [report for report in self.reports.values() if not request.states or report.state in request.states]
            if request.task_ids:
                found = [report for report in found if report.task_id in request.task_ids]
            infos = [TaskInfo(task_id=report.task_id, name="", state=report.state) for report in found]
            conversation.send(TaskList(request_id=request.request_id, tasks=infos[: request.limit]))
        elif isinstance(request, GetStatus):
            conversation.send(StatusReport(request_id=request.request_id, status=dict(self.info)))
        elif isinstance(request, QuitServer):
            conversation.send(Done(request_id=request.request_id))

    def _submit(self, conversation: Conversation, request: SubmitTasks) -> None:
        conversation.functions.update(request.functions)
        for task in request.tasks:
            if task.function_key and task.function_key not in conversation.functions:
                message = f"the function of task {task.task_id} was never sent"
                conversation.send(RequestFailed(request_id=request.request_id, error="ServerError", message=message))
                return
        conversation.send(TasksAccepted(request_id=request.request_id))
        with self._lock:
            # A result that was taken is gone; but the real server keeps that of a task with a key.
            seen = self.reports if request.options.idempotency_key else self._seen
            known = [task.task_id for task in request.tasks if task.task_id in seen]
            self._seen |= {task.task_id for task in request.tasks}
            for task in request.tasks:
                if task.task_id not in known:
                    self.reports[task.task_id] = TaskReport(task.task_id, "ready")
                if request.delivery == "push":
                    self._watchers[task.task_id] = conversation
            tasks = [task for task in request.tasks if task.task_id not in known]
            if self.is_holding:
                self._held.append((conversation, tasks))
                tasks = []
        self._run_tasks(conversation, tasks)
        self._push(known)

    def _watch(self, conversation: Conversation, request: WatchResults) -> None:
        with self._lock:
            known = [task_id for task_id in request.task_ids if task_id in self.reports]
            self._watchers |= dict.fromkeys(known, conversation)
        unknown = [task_id for task_id in request.task_ids if task_id not in known]
        conversation.send(ResultsWatched(request_id=request.request_id, unknown=unknown))
        self._push(known)

    def _run_tasks(self, conversation: Conversation, tasks: list[TaskRequest]) -> None:
        for task in tasks:
            with self._lock:
                if self.reports[task.task_id].outcome:
                    continue  # cancelled
            report = self._execute(conversation, task)
            with self._changed:
                self.reports[task.task_id] = report
                self.executed.append(task.task_id)
                self._changed.notify_all()
        self._push([task.task_id for task in tasks])

    def _push(self, task_ids: list[str]) -> None:
        """Send those that have ended to those who wait for them."""
        due: dict[Conversation, list[TaskReport]] = {}
        with self._lock:
            for task_id in task_ids:
                report = self.reports.get(task_id)
                if report is not None and report.outcome and task_id in self._watchers:
                    due.setdefault(self._watchers.pop(task_id), []).append(report)
        for conversation, reports in due.items():
            sequence = conversation.next_sequence([report.task_id for report in reports])
            conversation.send(ResultsPushed(sequence=sequence, reports=reports))

    def _execute(self, conversation: Conversation, task: TaskRequest) -> TaskReport:
        started = time.perf_counter()
        try:
            if task.form == "procedure":
                value = loads(task.payload).run(None)
            else:
                function = loads(conversation.functions[task.function_key])
                loaded = loads(task.payload)
                if task.form == "call":
                    value = function(*loaded[0], **loaded[1])
                else:
                    value = [function(param) for param in loaded]
            return TaskReport(
                task.task_id,
                "succeeded",
                "succeeded",
                dumps_result(value),
                attempt=1,
                exit_status=0,
                elapsed_seconds=time.perf_counter() - started,
            )
        except Exception as error:
            pickled = dumps_exception(error)
            return TaskReport(
                task.task_id,
                "failed",
                "error",
                pickled.payload,
                pickled.error_type,
                pickled.error_message,
                pickled.traceback,
                attempt=1,
            )

    def _wait(self, task_ids: list[str], seconds: float, needs_all: bool = True) -> None:
        check = all if needs_all else any
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    check(task_id not in self.reports or self.reports[task_id].outcome for task_id in task_ids)
                    or not self.conversations
                ),
                None if seconds < 0 else seconds,
            )

    def _query(self, conversation: Conversation, request: QueryResults) -> None:
        self._wait(request.task_ids, request.wait_seconds)
        reports = [self.reports.get(task_id) for task_id in request.task_ids]
        taken = [report.task_id for report in reports if report is not None and report.outcome]
        sequence = conversation.next_sequence(taken) if request.take and taken else 0
        conversation.send(ResultsFound(request_id=request.request_id, reports=reports, sequence=sequence))

    def _begin_wait(self, conversation: Conversation, request: BeginWait) -> None:
        self._wait(request.task_ids, 30.0, request.needs == "all")
        conversation.send(WaitOver(wait_id=request.wait_id))

    def _cancel(self, conversation: Conversation, request: CancelTasks) -> None:
        cancelled = []
        with self._changed:
            for task_id in request.task_ids:
                report = self.reports.get(task_id)
                is_cancelled = report is not None and not report.outcome
                if is_cancelled:
                    self.reports[task_id] = TaskReport(task_id, "cancelled", "cancelled")
                cancelled.append(is_cancelled)
            self._changed.notify_all()
        conversation.send(TasksCancelled(request_id=request.request_id, cancelled=cancelled))
        self._push([task_id for task_id, is_cancelled in zip(request.task_ids, cancelled, strict=True) if is_cancelled])
