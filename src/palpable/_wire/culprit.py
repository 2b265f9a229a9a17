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
    steps: list[str] = []
    tries = _MAX_TRIES
    seen = {id(value)}
    innermost = value
    while len(steps) < _MAX_DEPTH:
        for name, part in _parts(innermost):
            if id(part) in seen:
                continue
            seen.add(id(part))
            tries -= 1
            if tries < 0 or not _is_refused(part, dumps):
                continue
            steps.append(name)
            innermost = part
            break
        else:
            break
    if not steps:
        return ""
    return f"{' -> '.join(steps)} (a {kind_of(innermost)})"


def kind_of(value: Any) -> str:
    """Return the name of the type of `value`, with its module unless it is a builtin."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_refused(part: Any, dumps: Callable[[Any], bytes]) -> bool:
    try:
        dumps(part)
    except Exception:  # the parts are the user's, and may raise anything
        return True
    return False


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        yield from _listed_parts(value)
    except Exception:  # an object that can't be looked into has no parts to name
        return


def _listed_parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield "the object it is bound to", value.__self__
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
            if name not in ("__dict__", "__weakref__"):
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
            yield f"its class {type(value).__qualname__!r}", type(value)


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
