"""Taking in new tasks: what is accepted, what is refused, and how it is to be run.

Runs in: the server process.
"""

from __future__ import annotations

import os
import secrets
import time

from msgspec.structs import replace

from palpable._core import events
from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import State
from palpable._wire.blake2 import digest_of
from palpable._wire.function_forms import module_of
from palpable._wire.messages import RequestFailed, SubmitTasks, TaskOptions, TaskRequest
from palpable.servants.delivery import Peer
from palpable.servants.manager import FULL_MESSAGE, Manager
from palpable.servants.order_queue import Accept
from palpable.units.task_options import filled_in

RESERVE_BYTES = 16 << 20
"""Room on the disk of the store that new tasks must leave, so that how the accepted ones end can be written."""
PRIORITY_MAX = 1 << 31
ID_MAX_CHARACTERS = 64
"""Clients make ids of 32."""
ROOM_SECONDS = 0.05
"""How long the answer to the question how much room there is holds."""


class Submissions:
    """Checks what is submitted, and makes tasks of it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self.left_open: set[str] = set()
        """Tasks that were neither accepted nor refused: what is asked about them is for the next server, too."""
        self._free_bytes = 0
        self._looked_at = 0.0
        self._last_options = TaskOptions()
        self._last_terms = self._terms(self._last_options)
        """What follows from them: most that is submitted is to be run as what was submitted before it."""

    def submit(self, peer: Peer, request: SubmitTasks) -> None:
        """Accept the tasks, or refuse them as a whole."""
        manager = self._manager
        known = manager.engine.tasks
        if request.options != self._last_options:
            self._last_terms = self._terms(request.options)
            self._last_options = request.options
        unfit, options, policy = self._last_terms
        ids = [task.task_id for task in request.tasks]
        if len(set(ids)) < len(ids):  # as with ids that are known: the first counts
            request = replace(request, tasks=list({task.task_id: task for task in reversed(request.tasks)}.values()))
            ids = [task.task_id for task in request.tasks]
        # What was accepted stays so, also when its client was not told, and submits it again to a server that drains.
        new = request.tasks
        if not known.keys().isdisjoint(ids):
            new = [task for task in new if task.task_id not in known]
        is_known = bool(ids) and not new
        refusal = None if is_known else unfit or self._reason_to_refuse(peer, request, ids)
        if refusal is not None and refusal[0] == "ServerDraining" and manager.is_ending and manager.store is not None:
            # Not refused: it is about to stop, and the client, whom nobody answers, asks the next server on the store.
            self.left_open.update(ids)
            return
        refusal = refusal or self._unfit_function(request)
        if refusal is not None:
            peer.send(RequestFailed(request_id=request.request_id, error=refusal[0], message=refusal[1]))
            return
        if request.functions:
            manager.functions.add(peer.connection_id, request.functions)
            manager.pool.prepare(filter(None, map(module_of, request.functions.values())))
        keys = [task.function_key for task in new]
        for key in set(keys):
            if key:
                manager.functions.refer(key, keys.count(key))
        known_ids = [task_id for task_id in ids if task_id in known] if len(new) < len(ids) else []
        receiver = None
        if request.delivery == "push":
            needs_exit = request.needs_exit
            if known_ids:
                manager.delivery.hand_over_pushes(known_ids, peer)
                manager.delivery.push_to(peer, known_ids, needs_exit=needs_exit)
            receiver = manager.delivery.receiver_of(peer, len(new), needs_exit=needs_exit)
        manager.handle(
            events.TasksSubmitted(
                new,
                policy,
                connection_id=peer.connection_id,
                parent_id=peer.inside_task,
                due_at=_due_at(options),
                name=options.name,
                receiver=receiver,
            ),
            # Before anything follows from it, so that no result overtakes the acceptance.
            first=Accept(peer, request.request_id, [] if known_ids else ids, known_ids),
        )
        if known_ids and request.delivery == "push":
            manager.push_known(ids)

    def retry(self, task_ids: list[str]) -> list[str]:
        """Submit once more what these tasks ran, each as a new task; return the new ids, "" where that can't be."""
        manager = self._manager
        new_ids = []
        for task_id in task_ids:
            task = manager.engine.tasks.get(task_id)
            if task is None or task.state not in (State.FAILED, State.CANCELLED) or task.request is None:
                new_ids.append("")
                continue
            if task.function_key and task.function_key not in manager.functions:  # what is stored of it is damaged
                new_ids.append("")
                continue
            new_ids.append(new_id := secrets.token_hex(16))
            request = self._request_again(task, new_id)
            if task.function_key:
                manager.functions.refer(task.function_key)
            manager.handle(
                events.TasksSubmitted(
                    [request],
                    replace(task.policy, idempotency_key="", ends_with_client=False, is_followup=False),
                    name=task.name,
                )
            )
        return new_ids

    def reason_to_refuse(self, peer: Peer) -> tuple[str, str] | None:
        """Return why nothing new is accepted at all, as an error's name and text; None if it is."""
        manager = self._manager
        if manager.engine.is_stopping:
            return "ServerUnreachable", "the server is stopping and accepts no new tasks"
        if manager.journal is not None and (manager.journal.is_full or self._room_bytes() < RESERVE_BYTES):
            return "StoreFull", FULL_MESSAGE
        if manager.engine.is_draining and not peer.inside_task:
            return "ServerDraining", "the server finishes what runs and accepts nothing new"
        return None

    def _request_again(self, task: TaskRecord, task_id: str) -> TaskRequest:
        old: TaskRequest = task.request
        payload = self._manager.stored_request(task) if task.is_on_disk else old.payload
        return TaskRequest(task_id, old.form, old.function_key, payload, old.name)

    def _terms(self, sent: TaskOptions) -> tuple[tuple[str, str] | None, TaskOptions, TaskPolicy]:
        """Return why options as sent are refused, if they are; these with the server's own; and what that comes to."""
        options = filled_in(sent, self._manager.settings.task_options)
        return _out_of_range(sent), options, self._policy(options)

    def _policy(self, options: TaskOptions) -> TaskPolicy:
        settings = self._manager.settings
        timeout_seconds = options.timeout_seconds
        return TaskPolicy(
            isolation=options.isolation or settings.isolation,
            timeout_seconds=settings.task_timeout_seconds if timeout_seconds is None else timeout_seconds,
            priority=options.priority,
            ends_with_client=options.ends_with_client,
            is_followup=options.is_followup,
            retries=options.retries,
            backoff_seconds=options.backoff_seconds,
            max_backoff_seconds=options.max_backoff_seconds,
            retry_on=options.retry_on,
            crash_retries=options.crash_retries,
            at_most_once=options.at_most_once,
            idempotency_key=options.idempotency_key,
            tags=options.tags,
        )

    def _reason_to_refuse(self, peer: Peer, request: SubmitTasks, ids: list[str]) -> tuple[str, str] | None:
        manager = self._manager
        refusal = _unfit_id(ids) or self.reason_to_refuse(peer)
        if refusal is not None:
            return refusal
        if peer.inside_task:
            parent = manager.engine.tasks.get(peer.inside_task)
            if parent is None or parent.is_final:
                return "TaskCancelled", f"task {peer.inside_task} has ended and can submit no sub-tasks"
        functions = manager.functions
        for key in {task.function_key for task in request.tasks}:
            if key and key not in request.functions and key not in functions:
                task_id = next(task.task_id for task in request.tasks if task.function_key == key)
                return "ServerError", f"the function {key} of task {task_id} was never sent"
        return None

    def _unfit_function(self, request: SubmitTasks) -> tuple[str, str] | None:
        """Functions are known by their digest, and what is known is not sent again: by all clients.

        So one that bears the name of another would be run by whoever means that one.
        """
        functions = self._manager.functions
        for key, data in request.functions.items():
            if key not in functions and digest_of(data) != key:
                return "ServerError", f"the function {key[:80]} does not have the digest that it is named by"
        return None

    def _room_bytes(self) -> int:
        now = time.monotonic()
        store = self._manager.store
        if store is not None and store.path and now - self._looked_at > ROOM_SECONDS:
            self._looked_at = now
            found = os.statvfs(os.path.dirname(store.path) or ".")
            self._free_bytes = found.f_bavail * found.f_frsize
        return self._free_bytes if store is not None and store.path else RESERVE_BYTES


def _due_at(options: TaskOptions) -> float | None:
    """Return the moment before which the task is not to start, in monotonic seconds; None: at once."""
    delay = options.delay_seconds
    if options.start_at is not None:
        delay = max(delay, options.start_at - time.time())
    return time.monotonic() + delay if delay > 0 else None


def _out_of_range(options: TaskOptions) -> tuple[str, str] | None:
    """Clients check their options themselves; one that did not must not harm the server."""
    timeout_seconds = options.timeout_seconds
    if timeout_seconds is not None and not timeout_seconds > 0:
        return "ValueError", f"timeout_seconds must be above 0, not {timeout_seconds}"
    for name in ("retries", "backoff_seconds", "max_backoff_seconds", "crash_retries", "delay_seconds"):
        value = getattr(options, name)
        if not 0 <= value < float("inf"):
            return "ValueError", f"{name} must be 0 or more, not {value}"
    if abs(options.priority) > PRIORITY_MAX:  # a store has no room for any number
        return "ValueError", f"priority must be from -{PRIORITY_MAX} to {PRIORITY_MAX}, not {options.priority}"
    return None


def _unfit_id(ids: list[str]) -> tuple[str, str] | None:
    """Ids go into environment variables, and into the lists that people read."""
    # All at once takes a third of the time.
    if all(ids) and max(map(len, ids), default=0) <= ID_MAX_CHARACTERS and "".join(ids).isprintable():
        return None
    unfit = next(id for id in ids if not 0 < len(id) <= ID_MAX_CHARACTERS or not id.isprintable())
    return "ValueError", f"a task's id must be 1 to {ID_MAX_CHARACTERS} characters, not {unfit[:80]!r}"
