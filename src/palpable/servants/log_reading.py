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
from palpable.servants.output_store import spool_size

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
        self._position = 0
        """How much of what the task has printed is sent."""
        self._end: int | None = None
        """Where the answer ends: a task that runs may print for ever, and faster than the peer reads. None: with it."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        task = self._manager.engine.tasks.get(self._request.task_id)
        if task is None:
            self._send(b"", is_last=True, is_known=False)
            return
        if not self._request.follow and not task.is_final:
            self._end = self._printed_bytes(task)
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
        pause = FOLLOW_SECONDS
        if self._peer.is_writable:
            if task.is_settled:
                self._send_rest(task)
                return
            if self._end is not None and not task.is_final:
                if self._send_until(task, self._end):
                    return
                pause = 0.0  # a piece in each turn of the loop, as long as they are read: others have their turn too
            elif self._request.follow:
                data = self._live_piece(task, CHUNK_BYTES)
                if data:
                    self._send(data, is_last=False)
        self._timer = asyncio.get_running_loop().call_later(pause, self._go_on)

    def _send_rest(self, task: TaskRecord) -> None:
        """Send what is kept of the output of a task that has ended."""
        data = self._manager.outputs.after(task.task_id, self._position)
        while len(data) > CHUNK_BYTES:
            self._send(data[:CHUNK_BYTES], is_last=False)
            data = data[CHUNK_BYTES:]
        self._send(data, is_last=True)

    def _send_until(self, task: TaskRecord, end: int) -> bool:
        """Send a piece of what was there when it was asked for; return whether it was the last one."""
        data = self._live_piece(task, min(CHUNK_BYTES, end - self._position))
        # Nothing comes: the task itself has shortened its file, or its attempt has ended just now.
        is_last = self._position >= end or not data
        self._send(data, is_last=is_last)
        return is_last

    def _printed_bytes(self, task: TaskRecord) -> int:
        """Return how much a task has printed until now."""
        place = self._live_place(task)
        live_bytes = 0 if place is None else max(0, spool_size(place[0]) - place[1])
        return self._manager.outputs.size(task.task_id) + live_bytes

    def _live_piece(self, task: TaskRecord, size: int) -> bytes:
        """Return what a task has printed next, `size` bytes at most: in earlier attempts, then in this one."""
        outputs = self._manager.outputs
        earlier_bytes = outputs.size(task.task_id)
        if self._position < earlier_bytes:
            data, self._position = outputs.piece(task.task_id, self._position, size)
            return data
        place = self._live_place(task)
        if place is None:
            return b""
        path, base = place
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            data = os.pread(descriptor, size, base + self._position - earlier_bytes)
        finally:
            os.close(descriptor)
        self._position += len(data)
        return data

    def _live_place(self, task: TaskRecord) -> tuple[str, int] | None:
        """Return the file in which this attempt prints, and where in it that begins; None if it has none (any more)."""
        runner = self._manager.engine.dispatcher.runners.get(task.runner_id or 0)
        link = self._manager.links.get(task.runner_id or 0)
        if link is None or not link.spool_path or runner is None or not runner.inbox or runner.inbox[0] is not task:
            return None
        return link.spool_path, link.collected_bytes if link.isolation == "worker" else 0

    def _send(self, data: bytes, *, is_last: bool, is_known: bool = True) -> None:
        self._peer.send(LogChunk(request_id=self._request.request_id, data=data, is_last=is_last, is_known=is_known))
        if is_last:
            self._on_done()
