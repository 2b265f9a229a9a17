"""The params of an asynchronous lazy map, read by an asyncio task no further ahead than there is room.

Apart from `param_source`, since a zygote holds that, and is not to hold asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from typing import Any


class AsyncParamSource:
    """The params in an asynchronous iterable, read by an asyncio task of its own.

    So the results of what has been read come while the source is waited for. Its task begins with `ask_for`.

    Args:
        on_news: called when there is something to take, and at the end.

    Attributes:
        count: how many were taken.
        error: what the source raised.
    """

    def __init__(self, params: AsyncIterable[Any], on_news: Callable[[], None]) -> None:
        self._iterator = aiter(params)
        self._on_news = on_news
        self._params: list[Any] = []
        self._wanted = 0
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_at_end = False
        self.count = 0
        self.error: BaseException | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether everything is read, and taken."""
        return self._is_at_end and not self._params

    def read(self, count: int) -> list[Any]:
        """Return up to `count` params that are here."""
        chunk, self._params = self._params[:count], self._params[count:]
        self.count += len(chunk)
        return chunk

    def fail(self, error: Exception) -> None:
        """Be at the end, with this error."""
        self._is_at_end, self._params, self.error = True, [], error

    def ask_for(self, count: int) -> None:
        """Have so many read, and no more, besides the one that is being waited for."""
        self._wanted = count
        if count and self._reader is None:
            self._reader = asyncio.ensure_future(self._read_all())
        elif len(self._params) < count:
            self._room.set()

    async def _read_all(self) -> None:
        try:
            async for param in self._iterator:
                if self._is_at_end:  # it has failed meanwhile
                    break
                self._params.append(param)
                if len(self._params) == 1:
                    self._on_news()
                while len(self._params) >= self._wanted:
                    self._room.clear()
                    await self._room.wait()
        except BaseException as error:
            self.error = self.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            self._is_at_end = True
            self._on_news()

    async def close(self) -> None:
        """Read no more. A source that is being waited for is cancelled, and an asynchronous generator is closed.

        Not left to the garbage collector: it may come late, or to a loop that has ended.
        """
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
