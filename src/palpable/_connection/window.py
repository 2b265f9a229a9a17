"""How many tasks a lazy map has under way, or done and not taken, and how many params go into each.

A chunk is one task, so a window means the same with every chunksize, as in `concurrent.futures.Executor.map` with
`buffersize` (Python 3.14). `docs/decisions/0017-what-a-window-counts.md` has the alternatives.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

K = TypeVar("K", bound=Hashable)

TASKS_AHEAD_PER_WORKER = 4
"""A worker that ends a task finds the next, and has one more while the answer travels."""
CHUNK_SECONDS = 0.005
"""What a chunk should take: long beside a message, short for somebody who waits for the first results."""
CHUNK_MAX = 4096


class Window(Generic[K]):
    """The tasks that are under way, or done and not taken. `K` stands for a task.

    Never more tasks than `window`, so never more params than `window` times the largest chunk until now. With chunks
    that find their size by themselves, less is enough most of the time (`room`).

    Args:
        workers: how many the server has.
        is_single: one param for each task, in a task of its own.
        window: tasks at most; None: `TASKS_AHEAD_PER_WORKER` for each worker.
        chunksize: params in a chunk; "auto": as many as take `CHUNK_SECONDS`, up to `CHUNK_MAX`, found by doubling.
            The first chunks have one param: a slow function is never read far ahead.

    Attributes:
        sizes: the tasks, in the order they were sent, with the number of their params.
        chunksize: how many params the next one is to have.
    """

    def __init__(self, workers: int, *, is_single: bool, window: int | None, chunksize: int | Literal["auto"]) -> None:
        self.is_single = is_single
        self.chunksize = 1 if chunksize == "auto" else chunksize
        self.sizes: dict[K, int] = {}
        self._is_adaptive = chunksize == "auto" and not is_single
        ahead = TASKS_AHEAD_PER_WORKER * workers
        self._limit = ahead if window is None else window
        self._enough = min(ahead, self._limit) if self._is_adaptive else self._limit
        """Tasks that keep the workers busy."""

    def room(self, arrived: int, *, is_ready: bool) -> int:
        """Return how many more tasks may be sent now.

        Up to the window where the chunksize was given. Chunks that find their size by themselves are sent as they are
        needed: while there is a result to take, no more than keep the workers busy, those that are done included, since
        whoever takes it is slower than the workers. While there is none, the first in order being slow, as many
        again for each that is done, so that the workers do not run dry; the window ends that. A large window is
        not filled at once with chunks whose right size is not known yet, most of them far too small.

        Args:
            arrived: how many of the tasks are done, and not taken.
            is_ready: whether there is a result to take.
        """
        needed = len(self.sizes) - (arrived if self._is_adaptive and not is_ready else 0)
        return min(self._limit - len(self.sizes), self._enough - needed)

    def is_low(self, room: int) -> bool:
        """Whether it is time to send more: not one for each that was taken, but a few at a time, in one message."""
        return not self.sizes or room >= max(1, self._enough // 4)

    def may_read(self) -> bool:
        """Whether the window has a place for another task, be it sent now or later."""
        return len(self.sizes) < self._limit

    def add(self, task: K, size: int) -> None:
        """The task is on its way."""
        self.sizes[task] = size

    def remove(self, task: K) -> None:
        """The task is taken."""
        del self.sizes[task]

    def adapt(self, elapsed_seconds: float | None, size: int) -> None:
        """Let chunks grow or shrink, after one of `size` params took so long."""
        if not self._is_adaptive or elapsed_seconds is None or size < self.chunksize:
            return
        if elapsed_seconds < CHUNK_SECONDS / 2:
            self.chunksize = min(CHUNK_MAX, self.chunksize * 2)
        elif elapsed_seconds > CHUNK_SECONDS * 2:
            self.chunksize = max(1, self.chunksize // 2)
