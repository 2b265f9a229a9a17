"""Whatever is cut, wherever: each task is accepted and run once, and everybody gets their own answer.

The client's half is real: `Outbox`, `Incoming`, `Pending`. The server is a few lines, and the wire is two strings of
bytes that may be cut anywhere, in both directions.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import booleans, integers

from palpable._connection.incoming import Incoming
from palpable._connection.outbox import SMALL_FUNCTION_BYTES, Outbox
from palpable._connection.pending import Pending
from palpable._connection.waiting import Arrival, Group, Request
from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.messages import (
    ClientRequest,
    GetStatus,
    RequestFailed,
    ResultsPushed,
    ResultsReceived,
    ResultsWatched,
    ServerAnswer,
    StatusReport,
    SubmitTasks,
    TaskOptions,
    TaskReport,
    TaskRequest,
    TasksAccepted,
    WatchResults,
)

OPTIONS = TaskOptions()
FUNCTIONS = {"small": b"f", "large": bytes(SMALL_FUNCTION_BYTES + 1)}


class Server:
    """Accepts tasks, knows those it has, ends them when told, and forgets a result when it is acknowledged."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: dict[str, None] = {}
        self.taken: list[str] = []
        self.starts: list[str] = []


class Conversation:
    """One connection, as the server sees it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reader: FrameReader[Any] = FrameReader(ClientRequest)
        self.functions: set[str] = set()
        self.watched: set[str] = set()
        self.pushed: dict[int, list[str]] = {}
        self.sequence = 0

    def hear(self, data: bytes) -> bytes:
        return b"".join(
            bytes(encode_frame(answer)) for message in self.reader.feed(data) for answer in self.do(message)
        )

    def do(self, message: Any) -> list[Any]:
        server = self.server
        if isinstance(message, SubmitTasks):
            self.functions |= set(message.functions)
            if not all(task.function_key in self.functions for task in message.tasks):
                return [RequestFailed(request_id=message.request_id, error="ServerError", message="never sent")]
            for task in message.tasks:
                if task.task_id not in server.starts:
                    server.starts.append(task.task_id)
                    server.running.append(task.task_id)
                self.watched.add(task.task_id)
            return [TasksAccepted(request_id=message.request_id), *self.due()]
        if isinstance(message, WatchResults):
            known = [task_id for task_id in message.task_ids if task_id in server.running or task_id in server.ended]
            self.watched |= set(known)
            unknown = [task_id for task_id in message.task_ids if task_id not in known]
            return [ResultsWatched(request_id=message.request_id, unknown=unknown), *self.due()]
        if isinstance(message, ResultsReceived):
            for sequence in [one for one in self.pushed if one <= message.sequence]:
                for task_id in self.pushed.pop(sequence):
                    server.ended.pop(task_id, None)
                    server.taken.append(task_id)
            return []
        assert isinstance(message, GetStatus)
        return [StatusReport(request_id=message.request_id, status={"of": message.request_id})]

    def due(self) -> list[Any]:
        task_ids = [task_id for task_id in self.watched if task_id in self.server.ended]
        if not task_ids:
            return []
        self.watched -= set(task_ids)
        self.sequence += 1
        self.pushed[self.sequence] = task_ids
        reports = [TaskReport(task_id, "succeeded", "succeeded", task_id.encode()) for task_id in task_ids]
        return [ResultsPushed(sequence=self.sequence, reports=reports)]


class CutConnections(RuleBasedStateMachine):
    """Random calls of a client, random progress of a server, random cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.pending = Pending()
        self.group = Group()
        self.arrivals: dict[str, Arrival] = {}
        self.requests: list[Request] = []
        self.outbox = Outbox(self.pending)
        self.connect()

    def connect(self) -> None:
        self.conversation = Conversation(self.server)
        self.incoming = Incoming(self.pending, self.outbox, lambda: None)
        self.from_server: FrameReader[Any] = FrameReader(ServerAnswer)
        self.to_server, self.to_client = bytearray(), bytearray()

    def send(self, data: Any, flags: int) -> int:
        self.to_server += data
        return len(data)

    # --- the client ---

    @rule(count=integers(1, 3), is_large=booleans())
    def submit(self, count: int, is_large: bool) -> None:
        key = "large" if is_large else "small"
        for _ in range(count):
            task_id = f"t{len(self.arrivals)}"
            arrival = self.arrivals[task_id] = Arrival(task_id, self.group)
            self.outbox.add_task(
                TaskRequest(task_id, "call", key, b""), FUNCTIONS[key], OPTIONS, "push", False, arrival
            )

    @rule()
    def ask(self) -> None:
        request = Request(self.outbox.new_request_id())
        self.requests.append(request)
        self.outbox.ask(request, GetStatus(request_id=request.request_id))

    @rule()
    def flush(self) -> None:
        self.outbox.flush(self.send, None)

    # --- the wire, and the server ---

    @rule(size=integers(1, 1 << 17))
    def carry_to_server(self, size: int) -> None:
        data, self.to_server = bytes(self.to_server[:size]), self.to_server[size:]
        self.to_client += self.conversation.hear(data)

    @rule(size=integers(1, 500))
    def carry_to_client(self, size: int) -> None:
        data, self.to_client = bytes(self.to_client[:size]), self.to_client[size:]
        for message in self.from_server.feed(data):
            assert self.incoming.handle(message)

    @precondition(lambda self: self.server.running)
    @rule()
    def end_a_task(self) -> None:
        self.server.ended[self.server.running.pop(0)] = None
        for message in self.conversation.due():
            self.to_client += encode_frame(message)

    @rule()
    def cut(self) -> None:
        successor = Outbox(self.pending)
        self.outbox.hand_over(successor, 0.0)
        self.outbox = successor
        self.connect()

    # --- what holds ---

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert len(self.server.starts) == len(set(self.server.starts))

    @invariant()
    def nobody_is_told_wrong(self) -> None:
        for task_id, arrival in self.arrivals.items():
            assert arrival.error is None
            assert arrival.report is None or arrival.report.payload == task_id.encode()

    @invariant()
    def nothing_is_taken_before_it_has_arrived(self) -> None:
        assert all(self.arrivals[task_id].is_there() for task_id in self.server.taken)

    def teardown(self) -> None:
        """With no more cuts, everybody gets what they wait for."""
        for _ in range(4):
            self.flush()
            while self.to_server:
                self.carry_to_server(1 << 20)
            while self.server.running:
                self.end_a_task()
            while self.to_client:
                self.carry_to_client(1 << 20)
        assert all(arrival.is_there() for arrival in self.arrivals.values())
        for request in self.requests:
            assert isinstance(request.answer, StatusReport)
            assert request.answer.status == {"of": request.request_id}
        assert sorted(self.server.starts) == sorted(self.arrivals)
        assert not self.pending.takers


TestCutConnections = CutConnections.TestCase
TestCutConnections.settings = settings(max_examples=60, stateful_step_count=40)
