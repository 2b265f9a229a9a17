"""What task processes say, and how they end, as events.

Runs in: the server process. Speaks with: the task processes, through their links.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from palpable._core import events
from palpable._wire.messages import ProcessExit, TaskEnded, TaskProgressed, TaskReturned, TaskSaid
from palpable._zygote.prepared_modules import MAX_BY_SEARCH
from palpable.servants.delivery import Peer
from palpable.servants.intake import HAVE_LARGE_ANSWERS
from palpable.servants.output_store import empty_spool, set_aside_spool, spool_size
from palpable.servants.process_link import ProcessLink

if TYPE_CHECKING:
    from palpable.servants.manager import Manager

task_logger = logging.getLogger("palpable.tasks")

LEVELS = {"DEBUG": 10, "INFO": 20, "PRINT": 20, "WARNING": 30, "ERROR": 40}


class TaskMessages:
    """Hears the task processes.

    Args:
        manager: is told.
        on_request: called with a peer and a request of a task.
        on_gone: called with a peer that made requests, when its process has ended.
    """

    def __init__(
        self, manager: Manager, on_request: Callable[[Peer, Any], None], on_gone: Callable[[Peer], None]
    ) -> None:
        self._manager = manager
        self._on_request = on_request
        self._on_gone = on_gone
        self._late_exits: list[tuple[ProcessLink, ProcessExit | None]] = []

    def on_messages(self, link: ProcessLink, messages: deque[Any]) -> None:
        """A task process has spoken. What is handled is taken out of `messages`."""
        endings: list[events.Ending] = []
        runner = self._manager.engine.dispatcher.runners.get(link.runner_id)
        is_reused = link.isolation == "worker"
        waiting: list[Any] = []
        while messages:
            message = messages.popleft()
            if type(message) is list:  # from the returns pipe
                endings += message
                link.collected_bytes = message[-1].output_to
                for returned in message:
                    if returned.output_to > returned.output_from:
                        self._collect_output(link, returned)
                continue
            if type(message) is TaskEnded:
                endings.append(message)
                if is_reused:
                    link.collected_bytes = message.output_to
                if not is_reused or message.output_to > message.output_from:
                    self._collect_output(link, message)
                if message.imported:
                    self._manager.pool.learn(message.imported)
                if message.searched:
                    self._manager.pool.prepare(message.searched, MAX_BY_SEARCH)
                continue
            if endings:  # what it asks for next concerns the task after these
                self._manager.handle(events.TasksEnded(link.runner_id, endings))
                endings = []
            if isinstance(message, TaskSaid):
                self._on_said(message)
            elif isinstance(message, TaskProgressed):
                task = self._manager.engine.tasks.get(message.task_id)
                if task is not None:
                    task.progress = (message.done, message.total, message.note)
            elif self._manager.is_recovering:
                messages.appendleft(message)  # it goes on when everything is known
                break
            elif link.must_wait(message):
                waiting.append(message)  # it goes on when the task has read
            elif not link.has_exited or type(message) not in HAVE_LARGE_ANSWERS:  # nobody has to be told that any more
                link.inside_task = runner.inbox[0].task_id if runner is not None and runner.inbox else ""
                if not link.inside_task:
                    continue  # its task was ended by force; the process is about to go
                self._manager.peers[link.connection_id] = link
                self._on_request(link, message)
        messages.extendleft(reversed(waiting))
        if endings:
            self._manager.handle(events.TasksEnded(link.runner_id, endings))

    def _on_said(self, message: TaskSaid) -> None:
        # The log ends the line itself.
        text = message.text.removesuffix("\n") if message.level == "PRINT" else message.text
        task_logger.log(LEVELS.get(message.level, 20), "%s %s", message.task_id, text)

    def _collect_output(self, link: ProcessLink, message: TaskEnded | TaskReturned) -> None:
        if link.isolation == "worker":
            self._manager.outputs.collect(message.task_id, link.spool_path, message.output_from, message.output_to)
        else:
            link.collected_bytes = self._manager.outputs.collect(message.task_id, link.spool_path, link.collected_bytes)

    def handle_late_exits(self) -> None:
        """Handle the exits that had to wait until everything is known."""
        late, self._late_exits = self._late_exits, []
        for link, process_exit in late:
            self.on_exited(link, process_exit)
            with suppress(OSError):
                os.unlink(link.spool_path)

    def on_exited(self, link: ProcessLink, process_exit: ProcessExit | None) -> None:
        """The process behind a link is gone; None: killed together with its zygote."""
        link.has_exited = True
        link.drain()
        if link.has_unheard and self._manager.is_recovering:
            if link.spool_path:
                link.spool_path = set_aside_spool(link.spool_path, link.runner_id)
            self._late_exits.append((link, process_exit))  # what it asked for, it asked before
            return
        runner = self._manager.engine.dispatcher.runners.get(link.runner_id)
        unclaimed = 1 if link.isolation == "task" and link.was_never_read else link.take_back()
        # What waits for the disk was not handed over either.
        unclaimed += self._manager.queue.held_tasks(link.runner_id)
        last = None
        if runner is not None:
            begun = [*runner.ended, *list(runner.inbox)[: max(0, len(runner.inbox) - unclaimed)]]
            last = begun[-1] if begun else None
        if link.spool_path and spool_size(link.spool_path):
            if last is not None and last.task_id in self._manager.engine.tasks:  # else it was forgotten meanwhile
                self._manager.outputs.collect(last.task_id, link.spool_path, link.collected_bytes)
            empty_spool(link.spool_path)
        link.close()
        self._manager.links.pop(link.runner_id, None)
        self._manager.handle(
            events.RunnerExited(
                link.runner_id,
                process_exit.exit_status if process_exit is not None else -9,
                process_exit.cpu_seconds if process_exit is not None else None,
                process_exit.peak_memory_bytes if process_exit is not None else None,
                unclaimed,
            )
        )
        if link.connection_id in self._manager.peers:
            # After its task has ended: what that waited for ends with it, though a wait that is given up ends nothing.
            link.inside_task = ""
            self._on_gone(link)
        self._manager.check_ended()
