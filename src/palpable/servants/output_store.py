"""What tasks printed: collected from their spool files, kept up to a limit, and followed live.

Runs in: the server process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palpable._core.task_record import TaskRecord

logger = logging.getLogger("palpable.server")

TAIL_LINES = 20
"""Lines of output that go with a failed result."""
TAIL_BYTES = 4096


def last_lines(data: bytes) -> str:
    """Return the last lines of an output, as text."""
    return "\n".join(data[-TAIL_BYTES:].decode("utf-8", "backslashreplace").splitlines()[-TAIL_LINES:])


class Output:
    """The output of one task: all of it, or its head and tail around a note of what was cut."""

    __slots__ = ("_head", "_limit", "_tail", "cut_bytes", "saved_bytes", "total_bytes")

    def __init__(self, limit_bytes: int, head: bytes = b"") -> None:
        self._limit = limit_bytes // 2
        self._head = head
        self._tail = b""
        self.cut_bytes = 0
        self.saved_bytes = self.total_bytes = len(head)

    def collect(self, descriptor: int, start: int, end: int) -> None:
        """Add the bytes from `start` to `end` of an open file; reads no more than is kept."""
        size = end - start
        self.total_bytes += size
        room = self._limit - len(self._head) if not self._tail else 0
        if room > 0:
            piece = os.pread(descriptor, min(room, size), start)
            self._head += piece
            start += len(piece)
            size = end - start
        if size > 0:
            skipped = max(0, size - self._limit)
            tail = self._tail + os.pread(descriptor, size - skipped, start + skipped)
            cut = max(0, len(tail) - self._limit)
            self._tail = tail[cut:]
            self.cut_bytes += skipped + cut

    @property
    def data(self) -> bytes:
        if not self.cut_bytes:
            return self._head + self._tail
        return self._head + _note(self.cut_bytes) + self._tail

    def after(self, position: int) -> bytes:
        """Return what is kept of the output from byte `position` on."""
        if position < len(self._head):
            return self.data[position:]
        return self._tail[max(0, position - self._tail_starts_at) :]

    def piece(self, position: int, size: int) -> tuple[bytes, int]:
        """Return what is kept from byte `position` on, `size` bytes at most, and the position behind that.

        Of what was cut away, a note stands in its place, beyond `size`.
        """
        note = b""
        if position < len(self._head):
            data = self._head[position : position + size]
        elif position < self._tail_starts_at:
            note = _note(self._tail_starts_at - position)
            position = self._tail_starts_at
            data = self._tail[:size]
        else:
            start = position - self._tail_starts_at
            data = self._tail[start : start + size]
        return note + data, position + len(data)

    @property
    def _tail_starts_at(self) -> int:
        return self.total_bytes - len(self._tail)

    @property
    def last_lines(self) -> str:
        return last_lines(self._tail or self._head)


def _note(cut_bytes: int) -> bytes:
    return f"\n[... {cut_bytes} bytes were cut here ...]\n".encode()


class OutputStore:
    """The output of tasks by id; a silent task has no entry and costs one `stat`.

    Args:
        limit_bytes: kept of each task at most.
        load: returns what is stored of the output of a task that is not known here.
    """

    def __init__(self, limit_bytes: int, load: Callable[[str], bytes] = lambda task_id: b"") -> None:
        self._limit_bytes = limit_bytes
        self._load = load
        self._outputs: dict[str, Output] = {}

    def collect(self, task_id: str, spool_path: str, start: int, end: int | None = None) -> int:
        """Take what the task wrote from `start` on (up to `end`) out of its spool file; return where that ended.

        A spool file that can't be read (the task may do as it likes with its files) is an empty output.
        """
        try:
            if end is None:
                end = os.stat(spool_path).st_size
            if end <= start:
                return start
            descriptor = os.open(spool_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return start
        try:
            output = self._outputs.get(task_id)
            if output is None:
                output = self._outputs[task_id] = Output(self._limit_bytes, self._load(task_id))
            output.collect(descriptor, start, end)
        finally:
            os.close(descriptor)
        return end

    def size(self, task_id: str) -> int:
        """Return how much a task has printed, as far as it is collected."""
        output = self._outputs.get(task_id)
        return output.total_bytes if output is not None else len(self._load(task_id))

    def data(self, task_id: str) -> bytes:
        output = self._outputs.get(task_id)
        return output.data if output is not None else self._load(task_id)

    def after(self, task_id: str, position: int) -> bytes:
        """Return what is kept of a task's output from byte `position` on."""
        output = self._outputs.get(task_id)
        return output.after(position) if output is not None else self._load(task_id)[position:]

    def piece(self, task_id: str, position: int, size: int) -> tuple[bytes, int]:
        """Return what is kept from byte `position` on, `size` bytes and a note at most, and the position behind it."""
        output = self._outputs.get(task_id)
        if output is not None:
            return output.piece(position, size)
        data = self._load(task_id)[position : position + size]
        return data, position + len(data)

    def last_lines(self, task_id: str) -> str:
        output = self._outputs.get(task_id)
        return output.last_lines if output is not None else last_lines(self._load(task_id))

    def unsaved(self, task_id: str) -> bytes | None:
        """Return a task's output if it is more than when this was last asked, else None."""
        output = self._outputs.get(task_id)
        if output is None or output.saved_bytes == output.total_bytes:
            return None
        output.saved_bytes = output.total_bytes
        return output.data

    def unsave(self, task_id: str) -> None:
        """What `unsaved` returned last was not saved after all."""
        output = self._outputs.get(task_id)
        if output is not None:
            output.saved_bytes = 0

    def forget(self, tasks: Iterable[TaskRecord]) -> None:
        outputs = self._outputs
        if outputs:  # most tasks print nothing
            for task in tasks:
                outputs.pop(task.task_id, None)


def spool_size(spool_path: str) -> int:
    """Return how many bytes a spool file holds; 0 if it is not there."""
    try:
        return os.stat(spool_path).st_size
    except OSError:
        return 0


def empty_spool(spool_path: str) -> None:
    """Make a spool file ready for its next process."""
    try:
        os.truncate(spool_path, 0)
    except OSError:
        pass  # removed by a task; the zygote still holds it open, and what is written there is lost, no more


def set_aside_spool(path: str, number: int) -> str:
    """Move what is in a spool file to a file of its own, and return the path of that: another process uses the spool.

    Args:
        number: no other content set aside has it.
    """
    import shutil  # rarely needed, and it brings the modules of three compressors along

    aside = f"{path}.{number}"
    try:
        shutil.copyfile(path, aside)
    except OSError as error:  # the disk is full; the output is lost, and is not mistaken for that of the other
        logger.warning("the output of a task whose end is put off is lost: %s", error)
    empty_spool(path)
    return aside
