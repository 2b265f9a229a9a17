"""What is done for each request, whoever sent it: a client's connection or a task.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from palpable._core import events
from palpable._core.task_state import State
from palpable._wire.messages import (
    BeginWait,
    CancelTasks,
    Done,
    EndWait,
    GetStatus,
    ListTasks,
    QueryResults,
    QuitServer,
    ReadLogs,
    RequestFailed,
    ResultsReceived,
    ResultsWatched,
    StatusReport,
    StopReading,
    SubmitTasks,
    TaskInfo,
    TaskList,
    TasksAccepted,
    TasksCancelled,
    WatchResults,
)
from palpable.servants.delivery import Peer
from palpable.servants.log_reading import LogReading
from palpable.servants.manager import Manager
from palpable.servants.reports import info_of


class Requests:
    """Answers requests.

    Args:
        manager: who decides and keeps.
        describe: returns what a status report says of the server itself.
        quit_server: called when a client asks the server to stop.
    """

    def __init__(self, describe: Callable[[], dict[str, Any]], quit_server: Callable[[], None]) -> None:
        self.manager: Manager
        self._describe = describe
        self._quit_server = quit_server
        self._readings: dict[tuple[int, int], LogReading] = {}
        self._handlers: dict[type, Callable[[Peer, Any], None]] = {
            SubmitTasks: self._submit,
            ResultsReceived: self._received,
            QueryResults: self._query,
            WatchResults: self._watch,
            BeginWait: self._begin_wait,
            EndWait: self._end_wait,
            CancelTasks: self._cancel,
            ReadLogs: self._read_logs,
            StopReading: self._stop_reading,
            ListTasks: self._list,
            GetStatus: self._status,
            QuitServer: self._quit,
        }

    def handle(self, peer: Peer, request: Any) -> None:
        """Do what the peer asks."""
        self._handlers[type(request)](peer, request)

    def disconnected(self, peer: Peer) -> None:
        """The peer is gone."""
        for key in [key for key in self._readings if key[0] == peer.connection_id]:
            self._readings.pop(key).stop()
        manager = self.manager
        manager.peers.pop(peer.connection_id, None)
        manager.delivery.disconnected(peer)
        manager.functions.connection_closed(peer.connection_id)
        manager.handle(events.ConnectionClosed(peer.connection_id, peer.inside_task))

    # --- requests ---

    def _submit(self, peer: Peer, request: SubmitTasks) -> None:
        manager = self.manager
        refusal = self._reason_to_refuse(peer, request)
        if refusal is not None:
            peer.send(RequestFailed(request_id=request.request_id, error=refusal[0], message=refusal[1]))
            return
        settings, options = manager.settings, request.options
        known = manager.engine.tasks
        manager.functions.add(peer.connection_id, request.functions)
        new = []
        for task in request.tasks:
            if task.task_id not in known:
                new.append(events.NewTask(task.task_id, task.name, task.function_key, task))
                if task.function_key:
                    manager.functions.refer(task.function_key)
        if request.delivery == "push":
            if len(new) < len(request.tasks):
                manager.delivery.withdraw_pushes([task.task_id for task in request.tasks])
            manager.delivery.push_to(peer, [task.task_id for task in request.tasks], needs_exit=request.needs_exit)
        # Accepted before anything follows from it, so that no result overtakes the acceptance.
        peer.send(TasksAccepted(request_id=request.request_id))
        timeout = options.timeout_seconds
        manager.handle(
            events.TasksSubmitted(
                new,
                isolation=options.isolation or settings.isolation,
                timeout_seconds=settings.task_timeout_seconds if timeout is None else timeout,
                priority=options.priority,
                connection_id=peer.connection_id,
                parent_id=peer.inside_task,
                ends_with_client=options.ends_with_client,
                is_followup=options.is_followup,
            )
        )
        if len(new) < len(request.tasks) and request.delivery == "push":
            manager.delivery.push_finished([task.task_id for task in request.tasks])
            manager.delivery.flush()

    def _reason_to_refuse(self, peer: Peer, request: SubmitTasks) -> tuple[str, str] | None:
        engine = self.manager.engine
        timeout = request.options.timeout_seconds
        if timeout is not None and not timeout > 0:
            return "ValueError", f"timeout_seconds must be above 0, not {timeout}"
        if engine.is_stopping:
            return "ServerUnreachable", "the server is stopping and accepts no new tasks"
        if peer.inside_task:
            parent = engine.tasks.get(peer.inside_task)
            if parent is None or parent.is_final:
                return "TaskCancelled", f"task {peer.inside_task} has ended and can submit no sub-tasks"
        functions = self.manager.functions
        for task in request.tasks:
            if task.function_key and task.function_key not in functions and task.function_key not in request.functions:
                return "ServerError", f"the function {task.function_key} of task {task.task_id} was never sent"
        return None

    def _received(self, peer: Peer, request: ResultsReceived) -> None:
        self.manager.delivery.acknowledge(peer, request.sequence)

    def _query(self, peer: Peer, request: QueryResults) -> None:
        self.manager.delivery.query(peer, request)

    def _watch(self, peer: Peer, request: WatchResults) -> None:
        tasks, delivery = self.manager.engine.tasks, self.manager.delivery
        known = [task_id for task_id in request.task_ids if task_id in tasks and not tasks[task_id].is_taken]
        watched = set(known)
        # The connection they were submitted on may not be known to be gone.
        delivery.withdraw_pushes(known)
        delivery.push_to(peer, known, needs_exit=request.needs_exit)
        unknown = [task_id for task_id in request.task_ids if task_id not in watched]
        peer.send(ResultsWatched(request_id=request.request_id, unknown=unknown))
        delivery.push_finished(known)
        delivery.flush()

    def _begin_wait(self, peer: Peer, request: BeginWait) -> None:
        if not peer.inside_task:
            peer.send(
                RequestFailed(
                    request_id=request.wait_id, error="ServerError", message="only a task can wait; a client just does"
                )
            )
            return
        self.manager.handle(
            events.WaitBegan(peer.inside_task, peer.connection_id, request.wait_id, request.task_ids, request.needs)
        )

    def _end_wait(self, peer: Peer, request: EndWait) -> None:
        self.manager.handle(events.WaitEnded(peer.inside_task, peer.connection_id, request.wait_id))

    def _cancel(self, peer: Peer, request: CancelTasks) -> None:
        tasks = self.manager.engine.tasks
        candidates = [task_id for task_id in request.task_ids if task_id in tasks and not tasks[task_id].is_final]
        self.manager.handle(events.EndRequested(candidates))
        # What the engine decided is carried out by now, also where it had to take tasks back first.
        cancelled = [
            task_id in candidates and task_id in tasks and tasks[task_id].state is State.CANCELLED
            for task_id in request.task_ids
        ]
        peer.send(TasksCancelled(request_id=request.request_id, cancelled=cancelled))

    def _read_logs(self, peer: Peer, request: ReadLogs) -> None:
        key = (peer.connection_id, request.request_id)
        reading = LogReading(self.manager, peer, request, on_done=lambda: self._readings.pop(key, None))
        self._readings[key] = reading
        reading.start()

    def _stop_reading(self, peer: Peer, request: StopReading) -> None:
        reading = self._readings.pop((peer.connection_id, request.request_id), None)
        if reading is not None:
            reading.stop()

    def _list(self, peer: Peer, request: ListTasks) -> None:
        tasks = self.manager.engine.tasks
        if request.task_ids:
            candidates = [tasks[task_id] for task_id in request.task_ids if task_id in tasks]
        else:
            candidates = list(reversed(tasks.values()))
        wanted = set(request.states)
        infos: list[TaskInfo] = []
        now = time.monotonic()
        for task in candidates:
            if len(infos) >= request.limit:
                break
            if not wanted or task.state in wanted:
                link = self.manager.links.get(task.runner_id or 0) if task.state is State.RUNNING else None
                runner = self.manager.engine.dispatcher.runners.get(task.runner_id or 0) if link is not None else None
                worker = self.manager.workers[runner.slot].name if runner and runner.slot is not None else ""
                infos.append(
                    info_of(
                        task,
                        utc_offset=self.manager.utc_offset,
                        now=now,
                        worker=worker,
                        pid=link.pid if link is not None else None,
                    )
                )
        peer.send(TaskList(request_id=request.request_id, tasks=infos))

    def _status(self, peer: Peer, request: GetStatus) -> None:
        peer.send(StatusReport(request_id=request.request_id, status={**self._describe(), **self.manager.status}))

    def _quit(self, peer: Peer, request: QuitServer) -> None:
        peer.send(Done(request_id=request.request_id))
        # After this turn of the loop, so that the answer is on its way before connections close.
        asyncio.get_running_loop().call_soon(self._quit_server)
