"""The manager: the shell around the engine.

Runs in: the server process. It turns requests, answers of task processes, exits and timers into events, and carries the
engine's effects out, strictly in order.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from palpable._core import effects as effect
from palpable._core import events
from palpable._core.engine import Engine
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._store.store import Store
from palpable._wire.messages import (
    ProcessExit,
    RequestFailed,
    TaskEnded,
    TaskOrder,
    TaskProgressed,
    TaskRequest,
    TasksAccepted,
    TaskSaid,
    WaitOver,
)
from palpable._zygote.settings import ZygoteSettings
from palpable.servants.delivery import Delivery, Peer
from palpable.servants.function_store import FunctionStore
from palpable.servants.journal import Journal
from palpable.servants.output_store import OutputStore, empty_spool, spool_size
from palpable.servants.process_link import ProcessLink
from palpable.servants.process_pool import ProcessPool
from palpable.servants.recovery import recover
from palpable.servants.servant import Servant
from palpable.servants.settings import ServerSettings, usable_cores
from palpable.servants.task_environment import task_environment
from palpable.servants.worker import Worker

logger = logging.getLogger("palpable.server")
task_logger = logging.getLogger("palpable.tasks")

FULL_MESSAGE = "the disk that holds the store is full: nothing new is accepted until there is room"
LEVELS = {"DEBUG": 10, "INFO": 20, "PRINT": 20, "WARNING": 30, "ERROR": 40}


class Call(effect.Effect, frozen=True):
    """Not the engine's: call this once everything ordered before is carried out, and saved."""

    function: Callable[[], None]


class Accept(effect.Effect, frozen=True):
    """Not the engine's: tell a peer that its tasks are accepted."""

    peer: Peer
    request_id: int
    task_ids: list[str]


class Manager(Servant):
    """Owns the workers, the queue of tasks and their results.

    It lives on the running event loop: `start` and `stop` return at once, `join` returns an awaitable.

    Args:
        settings: the server's.
        make_zygote_settings: given what to preload, returns the settings for a zygote.
        on_request: called with a peer and a request of a task.
        store: where tasks are kept; None: in memory alone.
        on_broken: called when the store can't be written any more.
    """

    def __init__(
        self,
        settings: ServerSettings,
        make_zygote_settings: Callable[[list[str]], ZygoteSettings],
        on_request: Callable[[Peer, Any], None],
        task_token: str,
        store: Store | None = None,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.engine = Engine(
            settings.num_workers,
            retention_capacity=settings.result_retention_capacity,
            retention_seconds=settings.result_retention_seconds,
            max_tasks_per_process=settings.max_tasks_per_process,
            is_durable=store is not None,
            first_sequence=1 if store is None else store.last_sequence() + 1,
            rng=random.Random(),
        )
        self.workers = [Worker(f"Worker-{slot + 1}", slot, self.link_in) for slot in range(settings.num_workers)]
        self.functions = FunctionStore() if store is None else FunctionStore(store.function)
        self.outputs = OutputStore(settings.output_limit_bytes, self._stored_output)
        self.delivery = Delivery(self.engine.tasks, self.outputs, self._on_taken, self.send_saved, store)
        self.journal: Journal | None = None
        self.ended: dict[str, int] = {}
        """How many tasks have ended since the start, by outcome: what a throughput is computed from."""
        self.recovered: dict[str, int] = {}
        """By what became of them: how many tasks an earlier start of this server had left."""
        self.peers: dict[int, Peer] = {}
        """Connections that may be sent answers, by connection id."""
        self.links: dict[int, ProcessLink] = {}
        self.utc_offset = time.time() - time.monotonic()
        self._make_zygote_settings = make_zygote_settings
        self._on_request = on_request
        self._task_token = task_token
        self._on_broken = on_broken
        self._effects: deque[tuple[int, effect.Effect]] = deque()
        """What is to be carried out, in order, each once the batch of the journal with that number is on disk."""
        self._is_carrying_out = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._ended: asyncio.Future[None] | None = None
        self._quiet = asyncio.Event()
        self._carry_out: dict[type, Callable[[Any], None]] = {
            effect.StartRunner: self._start_runner,
            effect.SendTasks: self._send_tasks,
            effect.TakeBack: self._take_back,
            effect.KillRunner: self._kill_runner,
            effect.ReleaseWait: self._release_wait,
            effect.RefuseWait: self._refuse_wait,
            effect.AttemptFailed: self._attempt_failed,
            effect.TaskFinished: self._task_finished,
            effect.TaskSettled: self._task_settled,
            effect.TaskForgotten: self._task_forgotten,
            Call: lambda order: order.function(),
            Accept: self._accept,
        }

    # --- life ---

    def start(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        zygote_count = max(1, min(self.settings.num_workers, usable_cores()))
        self.pool = ProcessPool(
            self._make_zygote_settings,
            zygote_count,
            self.settings.preload,
            on_exited=self._on_process_exited,
            environment=task_environment(self.settings.num_workers, self.settings.server_id),
        )
        if self.store is not None:
            self.journal = Journal(
                self.store,
                self.outputs,
                self.functions.__getitem__,
                self.utc_offset,
                on_committed=self._carry_out_due,
                on_full=self._refuse_unsaved,
                on_broken=self._store_broke,
            )
        return self

    async def start_processes(self) -> None:
        """Start the zygotes; return when tasks can run."""
        self._adjust_pool()
        await self.pool.start()

    async def recover(self) -> None:
        """Take up again what the store holds; tasks start as soon as the first are read."""
        if self.store is not None:
            self.recovered = await recover(self, self.store)

    def drain(self, *, is_on: bool = True) -> None:
        """Start nothing more, but for what running tasks wait for; or do so again."""
        self.handle(events.DrainRequested(is_on))

    async def wait_not_busy(self) -> None:
        """Return when no task runs."""
        while self.engine.is_busy:
            self._quiet.clear()
            await self._quiet.wait()

    def stop(self) -> None:
        """End every process. With a store what ran is handed back to it; else tasks end with the outcome "quit"."""
        if self.engine.is_stopping:
            return
        self.handle(events.StopRequested(hands_back=self.store is not None))
        self._check_ended()

    async def wait_ended(self) -> None:
        """Return when the last task process is gone, or its grace time is over."""
        assert self._ended is not None
        await asyncio.wait([self._ended], timeout=self.settings.kill_grace_seconds + 2.0)
        self.pool.close()
        await self.pool.wait_closed()
        if self.journal is not None:
            await self.journal.wait_idle()

    async def close_store(self) -> None:
        """Write what is unwritten, if there is room, and close the store."""
        if self.journal is not None:
            journal, self.journal = self.journal, None
            await journal.close()
        elif self.store is not None:
            self.store.close()

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.links.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _check_ended(self) -> None:
        if self.engine.is_stopping and not self.links and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    @property
    def status(self) -> dict[str, Any]:
        """Return the status as the original had it, and more."""
        states: dict[str, int] = {}
        for task in self.engine.tasks.values():
            states[task.state] = states.get(task.state, 0) + 1
        dispatcher = self.engine.dispatcher
        return {
            "worker_status": [worker.status for worker in self.workers],
            "task_queue_size": len(dispatcher.ready),
            "result_cache_size": sum(1 for t in self.engine.tasks.values() if t.is_final and not t.is_taken),
            "tasks": states,
            "ended": dict(self.ended),
            "is_draining": self.engine.is_draining,
            "store": self._describe_store(),
            "waiting": dispatcher.waiting_count,
            "processes": {"live": len(self.links), "idle": self.pool.idle_count},
            **self.pool.describe(),
        }

    def _describe_store(self) -> dict[str, Any] | None:
        store, journal = self.store, self.journal
        if store is None or journal is None:
            return None
        return {
            "path": store.path,
            "size_bytes": store.size_bytes(),
            "boot": store.boot,
            "is_full": journal.is_full,
            "recovered": self.recovered,
        }

    def link_in(self, slot: int) -> ProcessLink | None:
        """Return the link to the process in that slot, if there is one."""
        runner = self.engine.dispatcher.slots.runner_in(slot)
        return self.links.get(runner.runner_id) if runner is not None else None

    # --- events in ---

    def handle(self, event: events.Event, *, first: effect.Effect | None = None) -> None:
        """Let the engine decide, and carry out what it orders, once it is on disk.

        Args:
            first: carried out before that.
        """
        effects, journal = self.engine.handle(event, time.monotonic()), self.journal
        if journal is None:
            ticket = 0
        else:
            # Before anything is carried out: the tickets of all effects are for the batch that holds all changes.
            for order in effects:
                if type(order) is effect.SaveTask:
                    journal.mark(order.task, is_new=order.is_new)
                elif type(order) is effect.TaskForgotten:
                    journal.forget(order.task)
            ticket = journal.ticket
        if first is not None:
            self._effects.append((ticket, first))
        self._effects.extend([(ticket, order) for order in effects if type(order) is not effect.SaveTask])
        self._carry_out_due()

    def send_saved(self, peer: Peer, message: Any) -> None:
        """Send a peer what is true now, once it is on disk."""
        journal = self.journal
        if journal is None or (not self._effects and journal.ticket <= journal.committed):
            peer.send(message)
        else:
            self._effects.append((journal.ticket, Call(lambda: peer.send(message))))

    def push_known(self, task_ids: list[str]) -> None:
        """Push the results of those of these tasks that are final, once that is on disk."""
        tasks = self.engine.tasks
        finals = [tasks[task_id] for task_id in task_ids if task_id in tasks and tasks[task_id].is_final]
        if finals:
            ticket = self.journal.ticket if self.journal is not None else 0
            self._effects.append((ticket, Call(lambda: self.delivery.push_finished(finals))))
            self._carry_out_due()

    def when_done(self, function: Callable[[], None]) -> None:
        """Call `function` when everything ordered until now is carried out, and what that brought about is saved."""

        def call_once_more() -> None:
            # Carrying out `TakeBack` brought decisions that were saved only then.
            self._effects.append((self.journal.ticket if self.journal is not None else 0, Call(function)))

        self._effects.append((0, Call(call_once_more)))
        self._carry_out_due()

    def _carry_out_due(self) -> None:
        # Carrying out may bring the next event (`TakeBack` does). Its effects come after the present ones: the engine
        # decided them in the belief that those were carried out.
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        effects = self._effects
        try:
            while effects and (self.journal is None or effects[0][0] <= self.journal.committed):
                order = effects.popleft()[1]
                self._carry_out[type(order)](order)
        finally:
            self._is_carrying_out = False
        self.delivery.flush()
        self._adjust_pool()
        self._arm_timer()
        if self.engine.is_draining and not self.engine.is_busy:
            self._quiet.set()

    def _refuse_unsaved(self) -> None:
        """The disk is full: what was submitted and is not stored was never accepted, unless a process waits for it."""
        refused = []
        for entry in list(self._effects):
            order = entry[1]
            if isinstance(order, Accept) and all(map(self.engine.can_withdraw, order.task_ids)):
                refused.append(order)
                self._effects.remove(entry)
        task_ids = [task_id for order in refused for task_id in order.task_ids]
        logger.error("the disk is full: %d tasks are refused; what is not written yet waits for room", len(task_ids))
        self.delivery.withdraw_pushes(task_ids)
        if task_ids:
            self.handle(events.SubmissionsWithdrawn(task_ids))
        for order in refused:
            order.peer.send(RequestFailed(request_id=order.request_id, error="StoreFull", message=FULL_MESSAGE))

    def _store_broke(self, error: Exception) -> None:
        logger.critical("the store can't be written, so the server ends: %s", error)
        self._on_broken()

    def _on_messages(self, link: ProcessLink, messages: list[Any]) -> None:
        """A task process has spoken."""
        endings: list[events.TaskEnding] = []
        runner = self.engine.dispatcher.runners.get(link.runner_id)
        for message in messages:
            if type(message) is TaskEnded:
                endings.append(
                    events.TaskEnding(
                        message.task_id,
                        message.is_successful,
                        message.elapsed_seconds,
                        message.cpu_seconds,
                        message.peak_memory_bytes,
                        message,
                        message.error_type,
                        message.error_message,
                        message.error_bases,
                    )
                )
                self._collect_output(link, message)
                if message.imported:
                    self.pool.learn(message.imported)
                continue
            if endings:  # what it asks for next concerns the task after these
                self.handle(events.TasksEnded(link.runner_id, endings))
                endings = []
            if isinstance(message, TaskSaid):
                self._on_said(message)
            elif isinstance(message, TaskProgressed):
                task = self.engine.tasks.get(message.task_id)
                if task is not None:
                    task.progress = (message.done, message.total, message.note)
            else:
                link.inside_task = runner.inbox[0].task_id if runner is not None and runner.inbox else ""
                if not link.inside_task:
                    continue  # its task was ended by force; the process is about to go
                self.peers[link.connection_id] = link
                self._on_request(link, message)
        if endings:
            self.handle(events.TasksEnded(link.runner_id, endings))

    def _on_said(self, message: TaskSaid) -> None:
        task_logger.log(LEVELS.get(message.level, 20), "%s %s", message.task_id, message.text)

    def _collect_output(self, link: ProcessLink, message: TaskEnded) -> None:
        if link.isolation == "worker":
            link.collected_bytes = message.output_to
            if message.output_to > message.output_from:
                self.outputs.collect(message.task_id, link.spool_path, message.output_from, message.output_to)
        else:
            link.collected_bytes = self.outputs.collect(message.task_id, link.spool_path, link.collected_bytes)

    def _on_process_exited(self, link: ProcessLink, process_exit: ProcessExit | None) -> None:
        """The process behind a link is gone; None: killed together with its zygote."""
        link.drain()
        runner = self.engine.dispatcher.runners.get(link.runner_id)
        unclaimed = 1 if link.isolation == "task" and link.was_never_read else link.take_back()
        # What waits for the disk was not handed over either.
        unclaimed += sum(
            len(order.tasks)
            for _, order in self._effects
            if type(order) is effect.SendTasks and order.runner_id == link.runner_id
        )
        last = None
        if runner is not None:
            begun = [*runner.ended, *list(runner.inbox)[: max(0, len(runner.inbox) - unclaimed)]]
            last = begun[-1] if begun else None
        if link.spool_path and spool_size(link.spool_path):
            if last is not None:
                self.outputs.collect(last.task_id, link.spool_path, link.collected_bytes)
            empty_spool(link.spool_path)
        link.close()
        self.links.pop(link.runner_id, None)
        self.peers.pop(link.connection_id, None)
        self.delivery.disconnected(link)
        self.functions.connection_closed(link.connection_id)
        self.handle(
            events.RunnerExited(
                link.runner_id,
                process_exit.exit_status if process_exit is not None else -9,
                process_exit.cpu_seconds if process_exit is not None else None,
                process_exit.peak_memory_bytes if process_exit is not None else None,
                unclaimed,
            )
        )
        self._check_ended()

    def _on_taken(self, task_ids: list[str]) -> None:
        self.handle(events.ResultsTaken(task_ids))

    # --- effects out ---

    def _start_runner(self, order: effect.StartRunner) -> None:
        link = ProcessLink(
            order.runner_id, order.isolation, self.settings.max_payload_bytes, self._on_messages, self._loop
        )
        self.links[order.runner_id] = link
        self.pool.acquire(link)

    def _send_tasks(self, order: effect.SendTasks) -> None:
        link = self.links.get(order.runner_id)
        runner = self.engine.dispatcher.runners.get(order.runner_id)
        if link is None or runner is None or runner.is_ending:
            return  # gone, or about to be; that was decided after this
        orders: list[TaskOrder] = []
        functions: dict[str, bytes] = {}
        for task in order.tasks:
            request: TaskRequest = task.request
            key = request.function_key
            if key and key not in link.known_functions:
                link.known_functions.add(key)
                functions[key] = self.functions[key]
            attempt = task.attempt if task.state is State.RUNNING else task.attempt + 1
            payload = request.payload if not task.is_on_disk else self.stored_request(task)
            orders.append(
                TaskOrder(
                    task.task_id,
                    attempt,
                    request.form,
                    key,
                    payload,
                    task.timeout_seconds,
                    self._task_token,
                    task.name,
                )
            )
        link.send_tasks(orders, functions, order.taken_back)

    def _take_back(self, order: effect.TakeBack) -> None:
        link = self.links.get(order.runner_id)
        if link is None:
            return
        count = link.take_back()
        link.drain()
        self.handle(events.TasksTakenBack(order.runner_id, count))

    def _kill_runner(self, order: effect.KillRunner) -> None:
        link = self.links.get(order.runner_id)
        if link is None:
            return
        if link.zygote is not None and link.pid is not None:
            link.zygote.end_process(link.pid, self.settings.kill_grace_seconds if order.is_graceful else 0.0)
        else:
            self.pool.release_unbound(link)
            self._on_process_exited(link, None)

    def _release_wait(self, order: effect.ReleaseWait) -> None:
        peer = self.peers.get(order.connection_id)
        if peer is not None:
            peer.send(WaitOver(wait_id=order.wait_id))

    def _refuse_wait(self, order: effect.RefuseWait) -> None:
        peer = self.peers.get(order.connection_id)
        if peer is not None:
            peer.send(RequestFailed(request_id=order.wait_id, error="WaitCycle", message=order.message))

    def _accept(self, order: Accept) -> None:
        order.peer.send(TasksAccepted(request_id=order.request_id))

    def _attempt_failed(self, order: effect.AttemptFailed) -> None:
        task = order.task
        logger.info("attempt %d of %s failed (%s)", task.attempt, task.task_id, task.error_type or "no answer")

    def _task_finished(self, order: effect.TaskFinished) -> None:
        task = order.task
        self.ended[task.outcome] = self.ended.get(task.outcome, 0) + 1
        if task.function_key and task.outcome is Outcome.SUCCEEDED:
            self.functions.release(task.function_key)
        link = self.links.get(task.runner_id or 0)
        if task.ending is None and link is not None and link.spool_path:
            # Ended by force, its process still there: its last words so far go with the result, which is told now.
            link.collected_bytes = self.outputs.collect(task.task_id, link.spool_path, link.collected_bytes)
        self.delivery.on_finished(task)

    def _task_settled(self, order: effect.TaskSettled) -> None:
        self.delivery.on_settled(order.task)

    def _task_forgotten(self, order: effect.TaskForgotten) -> None:
        task = order.task
        if task.function_key and task.outcome is not Outcome.SUCCEEDED:
            self.functions.release(task.function_key)
        self.outputs.forget(task.task_id)

    def stored_request(self, task: TaskRecord) -> bytes:
        """Return the payload of the request of a recovered task."""
        assert self.store is not None
        return self.store.request(task.sequence) or b""

    def _stored_output(self, task_id: str) -> bytes:
        task = self.engine.tasks.get(task_id)
        return (
            self.store.output(task.sequence) if self.store is not None and task is not None and task.is_on_disk else b""
        )

    # --- upkeep ---

    def _adjust_pool(self) -> None:
        """Keep as many processes alive as run, wait or are warm, and a few idle ones ahead."""
        spare = len(self.workers)
        self.pool.keep_alive(len(self.workers) + self.engine.dispatcher.waiting_count + spare)

    def _arm_timer(self) -> None:
        wakeup = self.engine.next_wakeup
        if wakeup >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wakeup
        self._timer = self._loop.call_later(max(0.0, wakeup - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.handle(events.TimePassed())
