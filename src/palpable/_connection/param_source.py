"""The params of a lazy map, read no further ahead than there is room.

An error that the source raises comes after everything that was read before it, as from the built-in `map`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from time import monotonic
from typing import Any

SLOW_SOURCE_SECONDS = 0.001
"""A source that takes longer than this for a param is not asked for another while there is a result to yield."""
READ_AT_ONCE = 256


class ParamSource:
    """The params in an iterable, read in chunks.

    Attributes:
        is_exhausted: there is nothing more to read.
        is_slow: the last param took a while; others may be shown what is done before the next is asked for.
        error: what the source raised.
    """

    def __init__(self, params: Iterable[Any]) -> None:
        self._params = iter(params)
        self.is_exhausted = False
        self.is_slow = False
        self.error: Exception | None = None

    def read(self, count: int) -> list[Any]:
        """Return the next `count` params; fewer at the end, and when the source turns out to be slow."""
        start = monotonic()
        chunk: list[Any] = []
        try:
            while len(chunk) < count:
                # One by one from a slow source: the first few are not to wait for the last.
                step = min(READ_AT_ONCE, count - len(chunk)) if chunk and not self.is_slow else 1
                wanted = len(chunk) + step
                chunk.extend(islice(self._params, step))  # on an error the list keeps what it was given until then
                if len(chunk) < wanted:
                    self.is_exhausted = True
                    break
                self.is_slow = monotonic() - start > SLOW_SOURCE_SECONDS * (1 + len(chunk) / READ_AT_ONCE)
                if self.is_slow:
                    break
        except Exception as error:
            self.is_exhausted, self.error = True, error
        return chunk
