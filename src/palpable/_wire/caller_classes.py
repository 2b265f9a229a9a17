"""The pickler for what travels back to a caller: instances of the caller's classes become its own again.

A class of the caller's `__main__` goes to the task by value, with an id (cloudpickle's class tracker). In the way
back it is `find_or_build(id, definition)`: a process that knows the id answers with its own class and never reads the
definition, so nothing of that class is set again: its methods stay the same function objects, and its mutable
attributes keep what they hold. Any other process builds the class from the definition, once.

Differs from cloudpickle, where every instance that arrives overwrites the attributes of the class that is there. On
the way *to* a task that is right, since the caller's class is the truth; on the way back it is not.

Classes refer to each other in cycles. So one definition holds all the classes that a class leads to, and each of them
is left alone where it is known.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from typing import Any

from cloudpickle import cloudpickle

from palpable._wire.by_value_pickler import CLASS_MAKERS, ByValuePickler

_building = threading.RLock()
_unfinished: dict[str, type] = {}
"""Classes being built now, by id: made, their attributes not yet set."""
_is_building = False


def _remake_lock() -> None:
    global _building, _is_building
    _building, _is_building = threading.RLock(), False
    _unfinished.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_remake_lock)


def find_or_build(class_id: str, definition: bytes) -> type:
    """Return the class of that id: the one that is here, else a new one. Safe in threads; each is built once."""
    global _is_building
    # Without the lock a second thread could find, and hand out, a class that the first has only begun to build.
    with _building:
        found = _find(class_id)
        if found is not None:
            return found
        if not definition:
            raise pickle.UnpicklingError("a class did not travel: its definition holds what can't be pickled")
        is_outermost, _is_building = not _is_building, True
        try:
            built = pickle.loads(definition)  # keeps the classes it leads to alive; the tracker holds them weakly
            found = _find(class_id)
        finally:
            if is_outermost:
                _is_building = False
                for unfinished_id in _unfinished:  # building failed: nobody may find the torso
                    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.pop(unfinished_id, None)
                _unfinished.clear()
        del built
        if found is None:
            raise pickle.UnpicklingError("a class is not in the definition that should hold it")
        return found


def _find(class_id: str) -> type | None:
    found: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(class_id)
    return found


def _begin_class(make: Any, args: tuple[Any, ...], class_id: str) -> type:
    found = _find(class_id)
    if found is None:
        found = make(*args)
        _unfinished[class_id] = found
    return found


def _finish_class(made: type, id_and_state: tuple[str, Any]) -> None:
    class_id, state = id_and_state
    if _unfinished.pop(class_id, None) is not None:
        cloudpickle._class_setstate(made, state)


class _DefinitionPickler(ByValuePickler):
    """Writes a class, and every class by value that it leads to, so that only unknown ones are built."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.class_ids: list[str] = []

    def reduce_class(self, held: type) -> Any:
        reduced = super().reduce_class(held)
        if type(reduced) is not tuple or reduced[0] not in CLASS_MAKERS:
            return reduced
        make, args, state = reduced[:3]
        class_id = cloudpickle._get_or_create_tracker_id(held)
        self.class_ids.append(class_id)
        return _begin_class, (make, args, class_id), (class_id, state), None, None, _finish_class


class ResultPickler(ByValuePickler):
    """Writes `find_or_build` for each class that would go by value."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._definitions: dict[str, bytes] = {}

    def reduce_class(self, held: type) -> Any:
        if not goes_by_value(held):
            return super().reduce_class(held)
        is_known = came_by_value(held)
        class_id = cloudpickle._get_or_create_tracker_id(held)
        if class_id not in self._definitions:
            try:
                self._define(held)
            except Exception:  # the class is the user's, and may hold anything
                if not is_known:
                    raise
                # The task put something into the caller's class that can't travel. The caller does not need it.
                self._definitions[class_id] = b""
        return find_or_build, (class_id, self._definitions[class_id])

    def _define(self, defined: type) -> None:
        with io.BytesIO() as file:
            pickler = _DefinitionPickler(file)
            pickler.dump(defined)
            definition = file.getvalue()
        for class_id in pickler.class_ids:
            self._definitions.setdefault(class_id, definition)


_NAMED_BY_TYPE = (type(None), type(Ellipsis), type(NotImplemented))


def goes_by_value(thing: type) -> bool:
    """Whether a class can't be imported elsewhere, so that its definition must travel."""
    if thing in _NAMED_BY_TYPE or thing in cloudpickle._BUILTIN_TYPE_NAMES:
        return False
    return not cloudpickle._should_pickle_by_reference(thing)


def came_by_value(thing: type) -> bool:
    """Whether another process knows this class by its id: it came from there, or was sent there."""
    return thing in cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS


def dumps_for_caller(value: Any) -> bytes:
    """Return `value` pickled. Raises whatever pickling it raises."""
    with io.BytesIO() as file:
        ResultPickler(file).dump(value)
        return file.getvalue()
