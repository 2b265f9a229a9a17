"""The params of a lazy map, read no further ahead than there is room.

An error that the source raises comes after everything that was read before it, as from the built-in `map`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from time import monotonic
from typing import Any, Protocol

from palpable._wire.payload import count_picklable, dumps_param, dumps_params
from palpable.units.task_exceptions import NotPicklable

SLOW_SOURCE_SECONDS = 0.001
"""A source that takes longer than this for a param is not asked for another while there is a result to yield."""
READ_AT_ONCE = 256


class Source(Protocol):
    """Where the params of a lazy map come from; `ParamSource`, or the asynchronous one."""

    count: int

    def read(self, count: int) -> list[Any]: ...
    def fail(self, error: Exception) -> None: ...


class ParamSource:
    """The params in an iterable, read in chunks.

    Attributes:
        is_exhausted: there is nothing more to read.
        is_slow: the last param took a while; others may be shown what is done before the next is asked for.
        count: how many were read.
        error: what the source raised.
    """

    def __init__(self, params: Iterable[Any]) -> None:
        self._params = iter(params)
        self.count = 0
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
            self.fail(error)
        self.count += len(chunk)
        return chunk

    def fail(self, error: Exception) -> None:
        """Be at the end, with this error."""
        self.is_exhausted, self.error = True, error


def dumps_next(source: Source, count: int, *, is_single: bool) -> tuple[bytes, int]:
    """Return the next params as the payload of a task, up to `count`, and how many they are.

    One that can't be pickled is an error of the source, in its place.
    """
    chunk = source.read(count)
    position = source.count - len(chunk)
    try:
        if not chunk:
            return b"", 0
        return dumps_param(chunk[0], position) if is_single else dumps_params(chunk, position), len(chunk)
    except NotPicklable as error:
        source.fail(error)
        good = count_picklable(chunk)
        return (dumps_params(chunk[:good], position), good) if 0 < good < len(chunk) else (b"", 0)
