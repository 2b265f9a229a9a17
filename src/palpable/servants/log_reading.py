"""Sending what a task printed to a client, at once or as it prints.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from palpable._core.task_record import TaskRecord
from palpable._wire.messages import LogChunk, ReadLogs
from palpable.servants.delivery import Peer
from palpable.servants.manager import Manager

FOLLOW_SECONDS = 0.05
"""How often a followed spool file is looked at. A file has no event that asyncio could wait for; only tasks that
somebody follows right now are looked at, so an idle server still does nothing."""
CHUNK_BYTES = 1 << 18


class LogReading:
    """One `ReadLogs`, from the request to its last chunk.

    Args:
        on_done: called after the last chunk.
    """

    def __init__(self, manager: Manager, peer: Peer, request: ReadLogs, on_done: Callable[[], object]) -> None:
        self._manager = manager
        self._peer = peer
        self._request = request
        self._on_done = on_done
        self._sent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        task = self._manager.engine.tasks.get(self._request.task_id)
        if task is None:
            self._send(b"", is_last=True, is_known=False)
        elif not self._request.follow and not task.is_final:
            data = self._live_bytes(task, 0)
            if task.attempt > 1:
                data += self._live_bytes(task, len(data))
            self._send(data, is_last=True)
        else:
            self._go_on()

    def stop(self) -> None:
        """The client wants no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hurry(self) -> None:
        """Send at once what there is, all of it if the task has ended: the server is about to close."""
        self.stop()
        self._go_on()

    def _go_on(self) -> None:
        self._timer = None
        task = self._manager.engine.tasks.get(self._request.task_id)
        if task is None:  # forgotten while it was followed
            self._send(b"", is_last=True)
            return
        if task.is_settled and self._peer.is_writable:
            data = self._manager.outputs.after(task.task_id, self._sent_bytes)
            while len(data) > CHUNK_BYTES:
                self._send(data[:CHUNK_BYTES], is_last=False)
                data = data[CHUNK_BYTES:]
            self._send(data, is_last=True)
            return
        if self._request.follow and self._peer.is_writable and not task.is_settled:
            data = self._live_bytes(task, self._sent_bytes)
            if data:
                self._sent_bytes += len(data)
                self._send(data, is_last=False)
        self._timer = asyncio.get_running_loop().call_later(FOLLOW_SECONDS, self._go_on)

    def _live_bytes(self, task: TaskRecord, start: int) -> bytes:
        """Return what a task has printed beyond `start`, a chunk at most: in earlier attempts, then in this one."""
        earlier_bytes = self._manager.outputs.size(task.task_id)
        if start < earlier_bytes:
            return self._manager.outputs.after(task.task_id, start)[:CHUNK_BYTES]
        runner = self._manager.engine.dispatcher.runners.get(task.runner_id or 0)
        link = self._manager.links.get(task.runner_id or 0)
        if link is None or not link.spool_path or runner is None or not runner.inbox or runner.inbox[0] is not task:
            return b""
        try:
            descriptor = os.open(link.spool_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            base = link.collected_bytes if link.isolation == "worker" else 0
            return os.pread(descriptor, CHUNK_BYTES, base + start - earlier_bytes)
        finally:
            os.close(descriptor)

    def _send(self, data: bytes, *, is_last: bool, is_known: bool = True) -> None:
        self._peer.send(LogChunk(request_id=self._request.request_id, data=data, is_last=is_last, is_known=is_known))
        if is_last:
            self._on_done()
