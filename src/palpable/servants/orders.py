"""Carrying out what the engine orders: processes are started, ended and handed tasks; peers are told.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palpable._core import effects as effect
from palpable._core import events
from palpable._core.task_state import RUNNING, SUCCEEDED
from palpable._wire.messages import RequestFailed, TaskOrder, TaskRequest, TasksAccepted, WaitOver
from palpable.servants.order_queue import Accept, Call
from palpable.servants.process_link import ProcessLink

if TYPE_CHECKING:
    from palpable.servants.manager import Manager

logger = logging.getLogger("palpable.server")


class Orders:
    """Carries orders out, one method for each.

    Args:
        manager: whose processes, peers and stores these are about.
        task_token: proves that a client speaks from inside a task.

    Attributes:
        handlers: what carries out an order, by its type.
    """

    def __init__(self, manager: Manager, task_token: str) -> None:
        self._manager = manager
        self._task_token = task_token
        self.handlers: dict[type, Callable[[Any], None]] = {
            effect.StartRunner: self._start_runner,
            effect.SendTasks: self._send_tasks,
            effect.TakeBack: self._take_back,
            effect.KillRunner: self._kill_runner,
            effect.ReleaseWait: self._release_wait,
            effect.RefuseWait: self._refuse_wait,
            effect.AttemptFailed: self._attempt_failed,
            effect.TasksFinished: self._tasks_finished,
            effect.TaskSettled: self._task_settled,
            effect.TasksForgotten: self._tasks_forgotten,
            Accept: self._accept,
            Call: lambda order: order.function(),
        }

    def _start_runner(self, order: effect.StartRunner) -> None:
        manager = self._manager
        link = ProcessLink(
            order.runner_id,
            order.isolation,
            manager.settings.max_payload_bytes,
            manager.messages.on_messages,
            asyncio.get_running_loop(),
            manager.delivery.writable_again,
            task_token=self._task_token,
        )
        manager.links[order.runner_id] = link
        manager.pool.acquire(link)

    def _send_tasks(self, order: effect.SendTasks) -> None:
        link = self._manager.links.get(order.runner_id)
        runner = self._manager.engine.dispatcher.runners.get(order.runner_id)
        if link is None or runner is None or runner.is_ending:
            return  # gone, or about to be; that was decided after this
        orders: list[TaskOrder] = []
        functions: dict[str, bytes] = {}
        known_functions = link.known_functions
        for task in order.tasks:
            request: TaskRequest = task.request
            key = task.function_key
            # Without its function the task fails, as its process says, and does not block its slot.
            if key and key not in known_functions and key in self._manager.functions:
                known_functions.add(key)
                functions[key] = self._manager.functions[key]
            attempt = task.attempt if task.state is RUNNING else task.attempt + 1
            payload = request.payload if not task.is_on_disk else self._manager.stored_request(task)
            orders.append(
                TaskOrder(
                    task.task_id,
                    attempt,
                    request.form,
                    key,
                    payload,
                    task.policy.timeout_seconds,
                    task.name,
                )
            )
        link.send_tasks(orders, functions, order.taken_back)

    def _take_back(self, order: effect.TakeBack) -> None:
        link = self._manager.links.get(order.runner_id)
        if link is None:
            return
        count = link.take_back()
        link.drain()
        self._manager.handle(events.TasksTakenBack(order.runner_id, count))

    def _kill_runner(self, order: effect.KillRunner) -> None:
        link = self._manager.links.get(order.runner_id)
        if link is None:
            return
        if link.zygote is not None and link.pid is not None:
            link.zygote.end_process(link.pid, self._manager.settings.kill_grace_seconds if order.is_graceful else 0.0)
        else:
            self._manager.pool.release_unbound(link)
            self._manager.messages.on_exited(link, None)

    def _release_wait(self, order: effect.ReleaseWait) -> None:
        peer = self._manager.peers.get(order.connection_id)
        if peer is not None:
            peer.send(WaitOver(wait_id=order.wait_id))

    def _refuse_wait(self, order: effect.RefuseWait) -> None:
        peer = self._manager.peers.get(order.connection_id)
        if peer is not None:
            peer.send(RequestFailed(request_id=order.wait_id, error="WaitCycle", message=order.message))

    def _accept(self, order: Accept) -> None:
        order.peer.send(TasksAccepted(request_id=order.request_id))

    def _attempt_failed(self, order: effect.AttemptFailed) -> None:
        task = order.task
        logger.info("attempt %d of %s failed (%s)", task.attempt, task.task_id, task.error_type or "no answer")

    def _tasks_finished(self, order: effect.TasksFinished) -> None:
        manager = self._manager
        ended = manager.ended
        for task in order.tasks:
            outcome = task.outcome
            ended[outcome] = ended.get(outcome, 0) + 1
            if task.ending is None:
                link = manager.links.get(task.runner_id or 0)
                if link is not None and link.spool_path:
                    # Ended by force, its process still there: its last words so far go with the result, told now.
                    collected_bytes = manager.outputs.collect(task.task_id, link.spool_path, link.collected_bytes)
                    link.collected_bytes = collected_bytes
        keys = [task.function_key for task in order.tasks if task.outcome is SUCCEEDED]
        for key in set(keys):
            if key:
                manager.functions.release(key, keys.count(key))
        manager.delivery.on_finished(order.tasks)

    def _task_settled(self, order: effect.TaskSettled) -> None:
        self._manager.delivery.on_finished((order.task,))

    def _tasks_forgotten(self, order: effect.TasksForgotten) -> None:
        for task in order.tasks:
            if task.outcome is not SUCCEEDED and task.function_key:
                self._manager.functions.release(task.function_key)
        self._manager.outputs.forget(order.tasks)
