"""A function as bytes, known by their hash, and made again only when something it holds may have changed.

A function of an importable module is pickled as its name, which stays. One that goes by value takes its code, defaults,
closure and globals along as they are now: in a notebook `N = 1; def f(x): return x + N`, a later `N = 2` must reach the
next task. So its pickle is used again only while every name it leads to, through other functions and classes by value
too, still holds the identical object, and all of these objects are of kinds that never change. Otherwise it is pickled
anew, which is always right, only slower (100 us instead of 1).

Runs in: clients, and task processes that submit sub-tasks.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from cloudpickle import cloudpickle

from palpable._wire.blake2 import digest_of
from palpable._wire.by_value_pickler import dumps_by_value
from palpable._wire.culprit import find_culprit
from palpable._wire.function_wrapper import FunctionWrapper
from palpable._wire.held_values import HeldValues
from palpable._wire.named_function import dumps_named
from palpable._wire.plain_function import dumps_plain
from palpable._wire.sendable_text import sendable
from palpable.units.task_exceptions import NotPicklable


class PickledFunction(NamedTuple):
    """`key` is the digest of `data` (`digest_of`); `name` is what people see in lists."""

    key: str
    data: bytes
    name: str


def dumps_function(function: Callable[..., Any]) -> PickledFunction:
    """Return `function` pickled; about a microsecond when it was pickled before and nothing it holds can have changed.

    Raises:
        NotPicklable: it holds something that can't be pickled; the message names it.
    """
    if len(cloudpickle._PICKLE_BY_VALUE_MODULES) != _by_value_modules_count:
        _forget_all()
    entry = _cache.get(id(function))
    if (
        entry is not None
        and entry.refers_to() is function
        and (entry.held is None or entry.held.is_unchanged(function))
    ):
        return entry.pickled
    return _dumps_anew(function)


def name_of(function: Any) -> str:
    """Return the qualified name of a function, or of what stands for one; can be sent. Never raises."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        name = getattr(function, "__qualname__", None)
        name = name if isinstance(name, str) else type(function).__qualname__
    except Exception:  # the callable is the user's, and may raise anything
        name = type(function).__qualname__
    return sendable(name)


def _dumps_anew(function: Callable[..., Any]) -> PickledFunction:
    if not callable(function):
        raise TypeError(f"the function to call must be callable, not {function!r}")
    if isinstance(function, FunctionWrapper) and not function.goes_by_name():
        return dumps_function(function.sent())
    # Looked at before it is pickled: a change by another thread in between is then seen the next time.
    held = HeldValues(function)
    is_stable = held.add(function)
    name = name_of(function)
    try:
        data = dumps_named(function) or dumps_plain(function) or dumps_by_value(function)
    except Exception as error:  # __reduce__ and the like are the user's, and may raise anything
        culprit = find_culprit(function, dumps_by_value)
        raise NotPicklable(
            f"the function {name!r} can't be pickled{f', because of its {culprit}' if culprit else ''}: {error}. "
            f"Make that inside the function, or in a module that the function imports."
        ) from error
    pickled = PickledFunction(digest_of(data), data, name)
    if is_stable:
        _remember(function, None if held.is_empty else held, pickled)
    return pickled


# --- the cache --------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    refers_to: Callable[[], Any]
    """A weak reference where there is one: an id is used again after the function is gone."""
    held: HeldValues | None
    """None: nothing that could change."""
    pickled: PickledFunction


_MAX_ENTRIES = 256
_MAX_BYTES = 64 << 20

_cache: dict[int, _Entry] = {}
_by_value_modules_count = 0


def _forget_all() -> None:
    """`cloudpickle.register_pickle_by_value` was called: what went by its name may now go by value."""
    global _by_value_modules_count
    _by_value_modules_count = len(cloudpickle._PICKLE_BY_VALUE_MODULES)
    _cache.clear()


def _remember(function: Callable[..., Any], held: HeldValues | None, pickled: PickledFunction) -> None:
    key = id(function)
    reference: Callable[[], Any]
    try:
        # Bound, and not looked up: at the end of the interpreter modules lose their names before the last functions go.
        reference = weakref.ref(function, functools.partial(_cache.pop, key))
    except TypeError:  # `str.upper` and the like have none

        def reference() -> Any:
            return function

    _cache[key] = _Entry(reference, held, pickled)
    if len(_cache) > _MAX_ENTRIES or len(pickled.data) > _MAX_BYTES // _MAX_ENTRIES:
        _drop_oldest(key)


def _drop_oldest(newest: int) -> None:
    """Keep the cache within its limits; the newest entry always stays."""
    entries = list(_cache.items())
    size = sum(len(entry.pickled.data) for _, entry in entries)
    count = len(entries)
    for key, entry in entries:
        if count <= _MAX_ENTRIES and size <= _MAX_BYTES:
            return
        if key != newest and _cache.pop(key, None) is not None:
            count -= 1
            size -= len(entry.pickled.data)
