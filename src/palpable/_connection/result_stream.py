"""What `imap` returns: a generator, as far as anybody can see, that is iterated without a step of Python for each item.

The results come in lists, a chunk at a time. A loop over them gets `itertools.chain`, which costs a tenth of what the
frames of generators do. Not so much that it matters for one task, but a stream may have millions of items.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any, TypeVar

T = TypeVar("T")


class ResultStream(Generator[T, None, None]):
    """The items of the lists that `batches` yields, one by one.

    Args:
        batches: closed when this is closed, or dropped. A list that it has yielded is emptied then.
    """

    def __init__(self, batches: Generator[list[T], None, None]) -> None:
        self._batches = batches
        self._current: list[list[T]] = []
        # No cycle leads back here: who drops it has it closed at once.
        self._items = chain.from_iterable(_noted(batches, self._current))

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        return self._items

    def __next__(self) -> T:
        return next(self._items)

    def send(self, value: Any) -> T:
        """As `next`: nobody is there to get the value."""
        return next(self._items)

    def throw(self, *error: Any) -> T:
        """Raise the error where the results are awaited, which ends the stream."""
        self._empty()
        return self._batches.throw(*error)  # type: ignore[return-value]

    def close(self) -> None:
        """End the stream; what it has submitted is cancelled. Safe to call twice."""
        self._empty()
        self._batches.close()

    def _empty(self) -> None:
        for batch in self._current:
            batch.clear()  # a loop that goes on finds nothing more


def _noted(batches: Generator[list[T], None, None], current: list[list[T]]) -> Iterator[Iterator[T] | list[T]]:
    for batch in batches:
        current[:] = [batch]
        if len(batch) == 1:
            # What is out with the caller is not held here: it may be large.
            yield _last_of(batch)
        else:
            yield batch


def _last_of(batch: list[T]) -> Iterator[T]:
    if batch:
        yield batch.pop()
