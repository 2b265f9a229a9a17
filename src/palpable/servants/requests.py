"""What is done for each request, whoever sent it: a client's connection or a task.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from palpable._core import events
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import FINAL, State
from palpable._wire.messages import (
    BeginWait,
    CancelTasks,
    Done,
    DrainServer,
    EndWait,
    GetStatus,
    ListTasks,
    PurgeTasks,
    QueryResults,
    QuitServer,
    ReadLogs,
    RequestFailed,
    ResultsReceived,
    ResultsWatched,
    RetryTasks,
    StatusReport,
    StopReading,
    SubmitTasks,
    TaskInfo,
    TaskList,
    TasksCancelled,
    TasksPurged,
    TasksRetried,
    WatchResults,
)
from palpable.servants.delivery import Peer
from palpable.servants.intake import LISTED_TASK_BYTES
from palpable.servants.log_reading import LogReading
from palpable.servants.manager import Manager
from palpable.servants.reports import info_of
from palpable.servants.submissions import Submissions

NOT_OF_TASKS = (ResultsReceived, EndWait, StopReading, DrainServer, GetStatus, QuitServer)


LISTED_MAX = 10_000
"""Tasks in one answer, at most: a few megabytes. Who wants more pages through them."""
ABOUT_TASKS = frozenset({CancelTasks, QueryResults, WatchResults})
"""Requests that are answered with how tasks stand, and asked again by a client that connects again."""


class Requests:
    """Answers requests.

    Args:
        describe: returns what a status report says of the server itself.
        quit_server: called when a client asks the server to stop, with how long what runs may take.

    Attributes:
        manager: who decides and keeps; set before the first request.
        submissions: who takes in new tasks; likewise.
    """

    def __init__(self, describe: Callable[[], dict[str, Any]], quit_server: Callable[[float], None]) -> None:
        self.manager: Manager
        self.submissions: Submissions
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
            RetryTasks: self._retry,
            PurgeTasks: self._purge,
            DrainServer: self._drain,
            ReadLogs: self._read_logs,
            StopReading: self._stop_reading,
            ListTasks: self._list,
            GetStatus: self._status,
            QuitServer: self._quit,
        }

    def handle(self, peer: Peer, request: Any) -> None:
        """Do what the peer asks.

        A durable server that is stopping says nothing of tasks any more: it closes the connection in a moment. To a
        client that connects again this is a break like others, and it submits, and asks, the next server. A refusal
        would be the end of the matter, and what is asked after a submission that was passed over would be answered as
        if there had been none.
        """
        left_open = self.submissions.left_open
        if left_open and type(request) in ABOUT_TASKS and not left_open.isdisjoint(request.task_ids):
            return  # to say now that there is no such task would be contradicted by the next server
        if self.manager.engine.is_stopping and self.manager.store is not None and type(request) not in NOT_OF_TASKS:
            return
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
        self.submissions.submit(peer, request)

    def _received(self, peer: Peer, request: ResultsReceived) -> None:
        self.manager.delivery.acknowledge(peer, request.sequence)

    def _query(self, peer: Peer, request: QueryResults) -> None:
        self.manager.delivery.query(peer, request)

    def _watch(self, peer: Peer, request: WatchResults) -> None:
        tasks, delivery = self.manager.engine.tasks, self.manager.delivery
        known = [task_id for task_id in request.task_ids if task_id in tasks and not tasks[task_id].is_taken]
        watched = set(known)
        # The connection they were submitted on may not be known to be gone.
        delivery.hand_over_pushes(known, peer)
        delivery.push_to(peer, known, needs_exit=request.needs_exit)
        unknown = [task_id for task_id in request.task_ids if task_id not in watched]
        peer.send(ResultsWatched(request_id=request.request_id, unknown=unknown))
        self.manager.push_known(known)

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
        manager = self.manager
        tasks = manager.engine.tasks
        candidates = {task_id: tasks[task_id] for task_id in request.task_ids if task_id in tasks}
        candidates = {task_id: task for task_id, task in candidates.items() if not task.is_final}

        def answer() -> None:
            # What the engine decided is carried out by now, also where it had to take tasks back first.
            cancelled = [
                task_id in candidates and candidates[task_id].state is State.CANCELLED for task_id in request.task_ids
            ]
            peer.send(TasksCancelled(request_id=request.request_id, cancelled=cancelled))

        manager.handle(events.EndRequested(list(candidates), spares_running=request.spares_running))
        manager.queue.call_done(answer)

    def _retry(self, peer: Peer, request: RetryTasks) -> None:
        refusal = self.submissions.reason_to_refuse(peer)
        if refusal is not None:
            peer.send(RequestFailed(request_id=request.request_id, error=refusal[0], message=refusal[1]))
            return
        new_ids = self.submissions.retry(request.task_ids)
        self.manager.queue.send_saved(peer, TasksRetried(request_id=request.request_id, new_task_ids=new_ids))

    def _purge(self, peer: Peer, request: PurgeTasks) -> None:
        unfit = [state for state in request.states if state not in FINAL]
        if unfit or not request.older_than_seconds >= 0:
            message = (
                f"only tasks that have ended can be purged, not {', '.join(unfit)} ones"
                if unfit
                else f"older_than_seconds must be 0 or more, not {request.older_than_seconds}"
            )
            peer.send(RequestFailed(request_id=request.request_id, error="ValueError", message=message))
            return
        tasks = self.manager.engine.tasks
        count = len(tasks)
        states = frozenset(request.states or FINAL)
        self.manager.handle(events.PurgeRequested(states, time.monotonic() - request.older_than_seconds))
        self.manager.queue.send_saved(peer, TasksPurged(request_id=request.request_id, count=count - len(tasks)))

    def _drain(self, peer: Peer, request: DrainServer) -> None:
        self.manager.drain(is_on=request.is_on)
        peer.send(Done(request_id=request.request_id))

    def _read_logs(self, peer: Peer, request: ReadLogs) -> None:
        key = (peer.connection_id, request.request_id)
        self._stop_reading(peer, StopReading(request_id=request.request_id))  # one that nobody could stop, else
        reading = LogReading(self.manager, peer, request, on_done=lambda: self._readings.pop(key, None))
        self._readings[key] = reading
        reading.start()

    def hurry_readings(self) -> None:
        """Send those who follow a task's output what they have not got, before connections are closed."""
        for reading in list(self._readings.values()):
            reading.hurry()

    def _stop_reading(self, peer: Peer, request: StopReading) -> None:
        reading = self._readings.pop((peer.connection_id, request.request_id), None)
        if reading is not None:
            reading.stop()

    def _list(self, peer: Peer, request: ListTasks) -> None:
        if unknown := set(request.states) - set(State):
            refusal = f"there is no state {min(unknown)!r}; there are {', '.join(State)}"
            peer.send(RequestFailed(request_id=request.request_id, error="ValueError", message=refusal))
            return
        tasks = self.manager.engine.tasks
        if request.task_ids:
            candidates: Iterable[TaskRecord] = [tasks[task_id] for task_id in request.task_ids if task_id in tasks]
        else:
            candidates = self.manager.engine.arrivals.newest_first(request.before)
        limit = request.limit if request.task_ids else min(request.limit, LISTED_MAX)
        wanted, tags = set(request.states), set(request.tags)
        infos: list[TaskInfo] = []
        now = time.monotonic()
        for task in candidates:
            if len(infos) >= limit:
                break
            if request.before is not None and task.sequence >= request.before:
                continue
            if (not wanted or task.state in wanted) and tags.issubset(task.policy.tags):
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
        message = TaskList(request_id=request.request_id, tasks=infos)
        self.manager.queue.send_saved(peer, message, LISTED_TASK_BYTES * len(infos))

    def _status(self, peer: Peer, request: GetStatus) -> None:
        peer.send(StatusReport(request_id=request.request_id, status={**self._describe(), **self.manager.status}))

    def _quit(self, peer: Peer, request: QuitServer) -> None:
        peer.send(Done(request_id=request.request_id))
        # After this turn of the loop, so that the answer is on its way before connections close.
        asyncio.get_running_loop().call_soon(self._quit_server, request.drain_seconds or 0.0)
