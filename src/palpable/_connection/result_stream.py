"""What `imap` returns: a generator, as far as anybody can see, that is iterated without a step of Python for each item.

The results come in lists, a chunk at a time. A loop over them gets `itertools.chain`, which costs a tenth of what the
frames of generators do. Not so much that it matters for one task, but a stream may have millions of items.

Threads may share a stream, as they may share the iterators of `multiprocessing.Pool`: each item goes to one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import length_hint
from typing import Any, TypeVar

T = TypeVar("T")


class ResultStream(Generator[T, None, None]):
    """The items of the lists that `batches` yields, one by one.

    Who asks for an item while another thread waits for the next list waits too. Who asks from within `batches` gets a
    ValueError, as from any generator.

    Args:
        batches: closed when this is closed, or dropped. A list that it has yielded is emptied then.
    """

    def __init__(self, batches: Generator[list[T], None, None]) -> None:
        # No cycle leads back here: who drops it has it closed at once.
        self._lists = _Lists(batches)
        self._items = chain.from_iterable(self._lists)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        return self._items

    def __next__(self) -> T:
        return next(self._items)

    def send(self, value: Any) -> T:
        """As `next`: nobody is there to get the value."""
        return next(self._items)

    def throw(self, *error: Any) -> T:
        """Raise the error where the results are awaited, which ends the stream."""
        return self._lists.throw(*error)  # type: ignore[return-value]

    def close(self) -> None:
        """End the stream; what it has submitted is cancelled. Safe to call twice.

        Raises:
            ValueError: a thread waits for an item.
        """
        self._lists.close()


class _Lists(Iterator[Iterator[T]]):
    """Gives `itertools.chain` one list after the other, as an iterator.

    The chain has no lock. It keeps the iterator it got last, and asks for another when that has no more items. So
    several threads may ask at once, and each overwrites what the others were given. Nothing is lost by that, since all
    get the identical iterator for as long as it has items, and taking an item from it is one step of C. The chain is
    over for all when an error or the end comes out of here, and so nothing else may.

    An object rather than a generator: the chain drops it at the end, while other threads may still be in here, and an
    interpreter that frees a generator whose frame runs crashes.
    """

    __slots__ = ("_batches", "_held", "_is_running", "_items", "_lock", "_rest")

    def __init__(self, batches: Generator[list[T], None, None]) -> None:
        self._batches = batches
        self._lock = threading.RLock()
        self._is_running = False
        self._held: tuple[list[Any], ...] = ()
        self._rest: Iterator[Any] = iter(())
        """Has as many steps left as there are items."""
        self._items: Iterator[T] = self._rest

    def __next__(self) -> Iterator[T]:
        with self._lock:
            if self._is_running:
                return _refusal()
            if length_hint(self._rest):
                return self._items
            try:
                self._is_running = True
                batch = next(self._batches)
                if len(batch) == 1:
                    # What is out with the caller is not held here: it may be large.
                    steps = [0]
                    self._held = steps, batch
                    self._rest = iter(steps)
                    self._items = map(batch.pop, self._rest)
                else:
                    self._held = (batch,)
                    self._rest = self._items = iter(batch)
                return self._items
            finally:
                self._is_running = False

    def throw(self, *error: Any) -> list[T]:
        with self._alone():
            self._empty()
            return self._batches.throw(*error)

    def close(self) -> None:
        with self._alone():
            self._empty()
            self._batches.close()

    def _empty(self) -> None:
        for held in self._held:
            held.clear()  # a loop that goes on finds nothing more

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The body has `batches` to itself. Raises ValueError: that runs."""
        if self._is_running or not self._lock.acquire(blocking=False):
            raise ValueError(_IS_RUNNING)
        try:
            self._is_running = True
            yield
        finally:
            self._is_running = False
            self._lock.release()


_IS_RUNNING = "generator already executing"


def _refusal() -> Iterator[Any]:
    """Raise when the first item is asked for: the chain, which would be over if it got the error itself, goes on."""
    raise ValueError(_IS_RUNNING)
    yield
