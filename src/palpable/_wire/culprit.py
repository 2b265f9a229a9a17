"""Finds the part of an object that can't be pickled, so that the error can name it."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from palpable._wire.by_value_pickler import global_names_of

_MAX_DEPTH = 12
_MAX_TRIES = 500


def find_culprit(value: Any, dumps: Callable[[Any], bytes]) -> str:
    """Return the way to the innermost part of `value` that `dumps` refuses; "" if that is `value` itself.

    Follows globals, closures and defaults of functions, attributes of instances and classes, items of containers.
    Never raises. Bounded: tries at most 500 parts, to a depth of 12.

    Example:
        >>> import threading, pickle
        >>> find_culprit({"a": [1, threading.Lock()]}, pickle.dumps)
        "item 'a' -> item 1 (a _thread.lock)"
    """
    search = _Search(dumps)
    search.refused.add(id(value))
    way = search.way_into(value, _MAX_DEPTH) or []
    if not way:
        return ""
    return f"{' -> '.join(name for name, _ in way)} (a {kind_of(way[-1][1])})"


class _Search:
    """One search: depth first, every part once."""

    def __init__(self, dumps: Callable[[Any], bytes]) -> None:
        self._dumps = dumps
        self._tries = _MAX_TRIES
        self._accepted: set[int] = set()
        self.refused: set[int] = set()

    def way_into(self, value: Any, depth: int) -> list[tuple[str, Any]] | None:
        """Return the steps to a part that is refused for itself; [] if that is `value`; None if it lies elsewhere."""
        is_refused_for_a_part = False
        for name, part in _parts(value):
            if id(part) in self.refused:  # a part that holds `value` in turn
                is_refused_for_a_part = True
            elif depth and self._is_refused(part):
                way = self.way_into(part, depth - 1)
                if way is not None:
                    return [(name, part), *way]
                is_refused_for_a_part = True
        return None if is_refused_for_a_part else []

    def _is_refused(self, part: Any) -> bool:
        if id(part) in self._accepted or self._tries == 0:
            return False
        self._tries -= 1
        try:
            self._dumps(part)
        except Exception:  # the parts are the user's, and may raise anything
            self.refused.add(id(part))
            return True
        self._accepted.add(id(part))
        return False


def kind_of(value: Any) -> str:
    """Return the name of the type of `value`, with its module unless it is a builtin."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        yield from _listed_parts(value)
    except Exception:  # an object that can't be looked into has no parts to name
        return


def _listed_parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield "bound object", value.__self__
        yield f"function {value.__func__.__name__!r}", value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"item {_brief(key)}", item
            yield f"key {_brief(key)}", key
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield f"item {number}", item
    elif isinstance(value, set | frozenset):
        for item in list(value):
            yield "an item", item
    elif isinstance(value, type):
        for name, item in list(vars(value).items()):
            if not isinstance(item, types.GetSetDescriptorType | types.MemberDescriptorType):
                yield f"class attribute {name!r}", getattr(item, "__func__", item)
    else:
        for name in ("func", "args", "keywords"):  # functools.partial
            if type(value).__module__ == "functools" and hasattr(value, name):
                yield f"{name}", getattr(value, name)
        for name, item in list(getattr(value, "__dict__", {}).items()):
            yield f"attribute {name!r}", item
        for number, item in enumerate(getattr(value, "args", ()) if isinstance(value, BaseException) else ()):
            yield f"argument {number}", item
        if type(value).__module__ == "__main__" or "<locals>" in type(value).__qualname__:
            yield f"class {type(value).__qualname__!r}", type(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name in global_names_of(function.__code__):
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"variable {name!r} of the enclosing function", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for number, default in enumerate(function.__defaults__ or ()):
        yield f"default {number}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"default of {name!r}", default
    for name, item in vars(function).items():
        yield f"attribute {name!r}", item


def _brief(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."
