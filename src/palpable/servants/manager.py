"""The manager: the shell around the engine.

Runs in: the server process. It owns everything that is about tasks. What happens becomes an event here: requests
(`requests`, `submissions`), what task processes say and how they end (`task_messages`), the time. What the engine
orders goes through `order_queue`, which waits for the disk (`journal`), and is carried out by `orders`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any, Self

from palpable._core import effects as effect
from palpable._core import events
from palpable._core.engine import Engine
from palpable._core.task_record import TaskRecord
from palpable._store.store import Store, StoreBroken
from palpable._wire.messages import RequestFailed
from palpable._zygote.settings import ZygoteSettings
from palpable.servants.delivery import Delivery, Peer
from palpable.servants.function_store import FunctionStore
from palpable.servants.journal import Journal
from palpable.servants.order_queue import OrderQueue
from palpable.servants.orders import Orders
from palpable.servants.output_store import OutputStore
from palpable.servants.process_link import ProcessLink
from palpable.servants.process_pool import ProcessPool
from palpable.servants.recovery import recover
from palpable.servants.servant import Servant
from palpable.servants.settings import ServerSettings, usable_cores
from palpable.servants.task_environment import task_environment
from palpable.servants.task_messages import TaskMessages
from palpable.servants.task_rows import TaskRows
from palpable.servants.worker import Worker

logger = logging.getLogger("palpable.server")

MANY_PER_WORKER = 8
"""With more tasks ready than this for each worker, writing may wait a little for more to write."""
FULL_MESSAGE = "the disk that holds the store is full: nothing new is accepted until there is room"


class Manager(Servant):
    """Owns the workers, the queue of tasks and their results.

    It lives on the running event loop: `start` and `stop` return at once, and `wait_ended` waits for the end.

    Args:
        settings: the server's.
        make_zygote_settings: given what to preload, returns the settings for a zygote.
        on_request: called with a peer and a request of a task.
        on_gone: called with a peer that made requests from inside a task, when its process has ended.
        store: where tasks are kept; None: in memory alone.
        on_broken: called with the error when the store can't be written any more.
    """

    def __init__(
        self,
        settings: ServerSettings,
        make_zygote_settings: Callable[[list[str]], ZygoteSettings],
        on_request: Callable[[Peer, Any], None],
        on_gone: Callable[[Peer], None],
        task_token: str,
        store: Store | None = None,
        on_broken: Callable[[Exception], None] = lambda error: None,
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
        self.delivery = Delivery(
            self.engine.tasks,
            self.outputs,
            self._on_taken,
            lambda peer, message, size_bytes: self.queue.send_saved(peer, message, size_bytes),
            store,
        )
        self.journal: Journal | None = None
        self.ended: dict[str, int] = {}
        """How many tasks have ended since the start, by outcome: what a throughput is computed from."""
        self.is_ending = False
        """Whether it drains because the server is to stop."""
        self.is_recovering = False
        """Whether not everything is known yet that the store holds."""
        self.recovered: dict[str, int] = {}
        """By what became of them: how many tasks an earlier start of this server had left."""
        self.peers: dict[int, Peer] = {}
        """Connections that may be sent answers, by connection id."""
        self.links: dict[int, ProcessLink] = {}
        self.utc_offset = time.time() - time.monotonic()
        self.rows = TaskRows(self.utc_offset, store.boot if store is not None else 0)
        self.messages = TaskMessages(self, on_request, on_gone)
        self.queue = OrderQueue(Orders(self, task_token).handlers, self._on_carried_out)
        self._make_zygote_settings = make_zygote_settings
        self._on_broken = on_broken
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._ended: asyncio.Future[None] | None = None
        self._quiet = asyncio.Event()

    # --- life ---

    def start(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self.pool = ProcessPool(
            self._make_zygote_settings,
            min(self.settings.num_workers, usable_cores()),
            self.settings.preload,
            on_exited=self.messages.on_exited,
            environment=task_environment(self.settings.num_workers, self.settings.server_id),
        )
        if self.store is not None:
            self.journal = self.queue.journal = Journal(
                self.store,
                self.outputs,
                self.functions.__getitem__,
                self.rows,
                lambda: len(self.engine.dispatcher.ready) > MANY_PER_WORKER * self.settings.num_workers,
                on_committed=self.queue.carry_out_due,
                on_full=self._refuse_unsaved,
                on_broken=self._store_broke,
            )
        return self

    async def start_processes(self) -> None:
        """Start the zygotes; return when tasks can run.

        Raises:
            NoZygote: none could be started, or none in time.
        """
        self._adjust_pool()
        await self.pool.start()

    async def recover(self, on_progress: Callable[[int], None], is_over: Callable[[], bool]) -> None:
        """Take up again what the store holds; tasks start as soon as the first are read.

        What they ask meanwhile waits until everything is known: a task they submit may be in the rest, by its key.

        Args:
            is_over: whether to leave the rest as it is, because the server is to stop.
        """
        if self.store is None:
            return
        self.is_recovering = True
        self.recovered = await recover(self, self.store, on_progress, is_over)
        if not is_over():
            self._end_recovery()

    def _end_recovery(self) -> None:
        """Hear what tasks had to say, and how they ended, since recovery began."""
        if not self.is_recovering:
            return
        self.is_recovering = False
        for link in list(self.links.values()):
            link.go_on()
        self.messages.handle_late_exits()

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
        self.handle(events.StopRequested(hands_back=self.store is not None, is_recovering=self.is_recovering))
        self._end_recovery()
        self.check_ended()

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
            await journal.wait_idle()  # clients may have said until the end what they hold
            await journal.close()
        elif self.store is not None:
            self.store.close()

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.links.clear()
        if self._timer is not None:
            self._timer.cancel()

    def check_ended(self) -> None:
        """Note that the last process of a server that stops is gone, if it is."""
        if self.engine.is_stopping and not self.links and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    @property
    def status(self) -> dict[str, Any]:
        """Return the status as the original had it, and more."""
        dispatcher = self.engine.dispatcher
        return {
            "worker_status": [worker.status for worker in self.workers],
            "task_queue_size": len(dispatcher.ready),
            "result_cache_size": self.engine.retention.result_count,
            "tasks": self.engine.count_states(),
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
        self.queue.enter(self.engine.handle(event, time.monotonic()), first)

    def push_known(self, task_ids: list[str]) -> None:
        """Push the results of those of these tasks that are final, once that is on disk."""
        tasks = self.engine.tasks
        finals = [tasks[task_id] for task_id in task_ids if task_id in tasks and tasks[task_id].is_final]
        if finals:
            self.queue.call_saved(lambda: self.delivery.push_finished(finals))

    def _on_carried_out(self) -> None:
        self.delivery.flush()
        self._adjust_pool()
        if (wakeup := self.engine.next_wakeup) < self._timer_at:
            self._arm_timer(wakeup)
        if self.engine.is_draining and not self.engine.is_busy:
            self._quiet.set()

    def _refuse_unsaved(self) -> None:
        """The disk is full: what was submitted and is not stored was never accepted, unless a process waits for it."""
        refused = self.queue.take_refusable(self.engine.can_withdraw)
        task_ids = [task_id for order in refused for task_id in order.new_task_ids]
        logger.error("the disk is full: %d tasks are refused; what is not written yet waits for room", len(task_ids))
        self.delivery.withdraw_pushes(task_ids)
        if task_ids:
            self.handle(events.SubmissionsWithdrawn(task_ids))
            self.delivery.on_withdrawn(task_ids)
        for order in refused:
            order.peer.send(RequestFailed(request_id=order.request_id, error="StoreFull", message=FULL_MESSAGE))

    def _store_broke(self, error: Exception) -> None:
        is_told = isinstance(error, StoreBroken)  # else it is a bug, and the place it comes from belongs to the reason
        what = error if is_told else repr(error)
        logger.critical("the store can't be written, so the server ends: %s", what, exc_info=None if is_told else error)
        self.queue.give_up_saving()
        self._on_broken(error)

    def _on_taken(self, task_ids: list[str]) -> None:
        self.handle(events.ResultsTaken(task_ids))

    # --- effects out ---

    def stored_request(self, task: TaskRecord) -> bytes:
        """Return the payload of the request of a recovered task; b"" if it is damaged, or lost."""
        assert self.store is not None
        try:
            return self.store.request(task.sequence) or b""
        except StoreBroken as error:
            logger.error("task %s can't be run: %s", task.task_id, error)
            return b""

    def _stored_output(self, task_id: str) -> bytes:
        task = self.engine.tasks.get(task_id)
        if self.store is None or task is None or not task.is_on_disk:
            return b""
        try:
            return self.store.output(task.sequence)
        except StoreBroken as error:
            return f"[{error}]\n".encode()

    # --- upkeep ---

    def _adjust_pool(self) -> None:
        """Keep as many processes alive as run, wait or are warm, and as many idle ones as there are workers ahead."""
        self.pool.keep_alive(2 * len(self.workers) + self.engine.dispatcher.waiting_count)

    def _arm_timer(self, wakeup: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wakeup
        self._timer = self._loop.call_later(max(0.0, wakeup - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        # The timer against answers: this process may have been stopped, or busy, for longer than a task was to take
        # that was ready in time. Its answer lies in the socket, and counts.
        for runner_id in self.engine.overdue_runners(time.monotonic()):
            if (link := self.links.get(runner_id)) is not None:
                link.drain()
        self.handle(events.TimePassed())
