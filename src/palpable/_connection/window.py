"""How far a lazy map reads ahead, and in what chunks."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

K = TypeVar("K", bound=Hashable)

TASKS_AHEAD_PER_WORKER = 4
"""A worker that ends a task finds the next, and has one more while the answer travels."""
CHUNK_SECONDS = 0.005
"""What a chunk should take: long beside a message, short for somebody who waits for the first results."""
CHUNK_MAX = 4096
CHUNKS_IN_WINDOW = 2
"""For each worker, in a window of so many params: one that runs, and one that is ready."""


class Window(Generic[K]):
    """What is on its way, or here and not taken. `K` stands for a chunk.

    Args:
        workers: how many the server has.
        is_single: one param for each task, in a task of its own.
        window: params at most; None: some chunks for each worker.
        chunksize: params in a chunk; "auto": as many as take `CHUNK_SECONDS`, found by doubling.
    """

    def __init__(self, workers: int, *, is_single: bool, window: int | None, chunksize: int | Literal["auto"]) -> None:
        ahead = TASKS_AHEAD_PER_WORKER * workers
        self.is_single = is_single
        self.chunksize = 1 if chunksize == "auto" else chunksize
        self.sizes: dict[K, int] = {}
        """The chunks, in the order they were sent, with the number of their params."""
        self._params = 0
        self._is_adaptive = chunksize == "auto" and not is_single
        self._counts_params = window is not None
        self._limit = ahead if window is None else window
        self._in_flight_max = ahead
        self._chunk_max = CHUNK_MAX if window is None else max(1, window // (CHUNKS_IN_WINDOW * workers))

    def _room(self) -> int:
        return self._limit - (self._params if self._counts_params else len(self.sizes))

    @property
    def is_low(self) -> bool:
        """Whether it is time to send more: not one for each that was taken, but a few at a time, in one message."""
        return not self.sizes or self._room() >= max(1, self._limit // 4)

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be sent."""
        return not self.sizes or self._room() >= (self.chunksize if self._counts_params else 1)

    def is_busy(self, arrived: int) -> bool:
        """Whether to send nothing more until more has arrived, although there is room.

        A large window is not filled with chunks whose right size is not known yet: most would be far too small.

        Args:
            arrived: how many of the chunks are here, and not taken.
        """
        return self._is_adaptive and len(self.sizes) - arrived >= self._in_flight_max

    def add(self, chunk: K, size: int) -> None:
        """The chunk is on its way."""
        self.sizes[chunk] = size
        self._params += size

    def remove(self, chunk: K) -> None:
        """The chunk is taken."""
        self._params -= self.sizes.pop(chunk, 0)

    def adapt(self, elapsed_seconds: float | None, size: int) -> None:
        """Let chunks grow or shrink, after one of `size` params took so long."""
        if not self._is_adaptive or elapsed_seconds is None or size < self.chunksize:
            return
        if elapsed_seconds < CHUNK_SECONDS / 2:
            self.chunksize = min(self._chunk_max, self.chunksize * 2)
        elif elapsed_seconds > CHUNK_SECONDS * 2:
            self.chunksize = max(1, self.chunksize // 2)
