"""The pickled functions that tasks refer to, each held once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

from palpable._store.store import StoreBroken

logger = logging.getLogger("palpable.server")


class FunctionStore:
    """Pickled functions by key, held while a task or a connection refers to them.

    Args:
        load: returns a function that tasks refer to and that is not held: those of recovered tasks are read when they
            are first needed. None: there is no such function. One that is damaged (`StoreBroken`) is as good as none:
            what needs it fails alone, and a client that sends it again puts it in its place.
    """

    def __init__(self, load: Callable[[str], bytes | None] = lambda key: None) -> None:
        self._load = load
        self._data: dict[str, bytes] = {}
        self._references: Counter[str] = Counter()
        self._by_connection: dict[int, set[str]] = {}
        self._missed: set[str] = set()
        """Those that tasks refer to and that could not be read: it was said once."""

    def __contains__(self, key: str) -> bool:
        return key in self._data or (key in self._references and self._fetch(key))

    def __getitem__(self, key: str) -> bytes:
        """Return a function.

        Raises:
            KeyError: it is not there, or can't be read.
        """
        if key not in self._data:
            self._fetch(key)
        return self._data[key]

    def _fetch(self, key: str) -> bool:
        reason = "it is not there (any more)"
        try:
            data = self._load(key)
        except StoreBroken as error:
            data, reason = None, str(error)
        if data is not None:
            self._data[key] = data
        elif key not in self._missed:
            self._missed.add(key)
            logger.error("the function %s can't be read, so what needs it can't be run: %s", key, reason)
        return data is not None

    def add(self, connection_id: int, functions: dict[str, bytes]) -> None:
        """Hold these as long as the connection that sent them lives."""
        held = self._by_connection.setdefault(connection_id, set())
        for key, data in functions.items():
            self._data.setdefault(key, data)
            if key not in held:
                held.add(key)
                self._references[key] += 1

    def refer(self, key: str, count: int = 1) -> None:
        """That many more tasks refer to the function."""
        self._references[key] += count

    def release(self, key: str, count: int = 1) -> None:
        """That many references less."""
        self._references[key] -= count
        if self._references[key] <= 0:
            del self._references[key]
            self._data.pop(key, None)
            self._missed.discard(key)

    def connection_closed(self, connection_id: int) -> None:
        held: Iterable[str] = self._by_connection.pop(connection_id, ())
        for key in held:
            self.release(key)
