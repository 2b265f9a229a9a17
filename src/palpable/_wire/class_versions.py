"""How often a class that travels by value was seen to change.

A process that runs many tasks keeps the functions it has unpickled, by their hash, but there is one class under each
id, and every payload that brings it sets its attributes. Say `C.x` is 1, then 2, then 1 again: the function that was
pickled first and the one pickled last would have the same bytes, so the process would take the first from its store,
and find 2 in the class. The version makes the bytes differ, so the last one is unpickled and sets 1.

Seen are attributes set, added or removed; not what changes inside a mutable attribute.

Runs in: clients, and task processes that submit sub-tasks.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple


class _Seen(NamedTuple):
    version: int
    attributes: dict[str, Any]


_seen: weakref.WeakKeyDictionary[type, _Seen] = weakref.WeakKeyDictionary()
_changes = 0

_ATOMS = (int, float, complex, str, bytes, bool, type(None))


def version_of(held: type) -> int:
    """Return 0 for a class that was never seen to change; one more whenever it has changed since the last look."""
    global _changes
    attributes = {name: _mark(value) for name, value in vars(held).copy().items() if name != "__slotnames__"}
    seen = _seen.get(held)
    if seen is None:
        _seen[held] = _Seen(0, attributes)
        return 0
    if seen.attributes == attributes:
        return seen.version
    _seen[held] = _Seen(seen.version + 1, attributes)
    _changes += 1
    return seen.version + 1


def change_count() -> int:
    """Return how many changes were seen, of all classes: when it stays the same, so do all versions."""
    return _changes


def _mark(value: Any) -> Any:
    # Not the value: most lead back to the class, which would never be freed. A freed atom's id may come again.
    return (type(value), value) if type(value) in _ATOMS else id(value)
