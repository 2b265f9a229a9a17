"""The pickler for what travels from a caller to a task: what cannot be imported there goes by value.

Prior art: cloudpickle, which does nearly all of it. Added here: functions under `functools.lru_cache` (cloudpickle
writes their name only, and a task does not have the caller's `__main__`), and `functools.cached_property` before
Python 3.12 (it holds a lock). Its dispatch table is one dict here: a look-up for every object in a `ChainMap` is slow.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

from cloudpickle import cloudpickle

PROTOCOL = 5


def _cached(function: Callable[..., Any], parameters: dict[str, Any], attributes: dict[str, Any]) -> Any:
    wrapper = functools.lru_cache(**parameters)(function)
    wrapper.__dict__.update(attributes)
    return wrapper


def _reduce_cached(wrapper: Any) -> Any:
    if _is_importable(wrapper):
        return wrapper.__reduce__()
    function = wrapper.__wrapped__
    attributes = {name: value for name, value in wrapper.__dict__.items() if name not in _SET_BY_LRU_CACHE}
    return _cached, (function, wrapper.cache_parameters(), attributes)


_SET_BY_LRU_CACHE = frozenset({"__wrapped__", "cache_parameters", *functools.WRAPPER_ASSIGNMENTS})


def _is_importable(thing: Any) -> bool:
    return cloudpickle._lookup_module_and_qualname(thing) is not None


def _reduce_cached_property(prop: Any) -> Any:
    state = {name: value for name, value in prop.__dict__.items() if name not in ("func", "lock")}
    return functools.cached_property, (prop.func,), state


_REDUCERS: dict[type, Callable[[Any], Any]] = {
    **cloudpickle.Pickler._dispatch_table,
    type(functools.lru_cache(_is_importable)): _reduce_cached,
    functools.cached_property: _reduce_cached_property,
}


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, with the additions named above."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, PROTOCOL)

    @property
    def dispatch_table(self) -> dict[type, Callable[[Any], Any]]:
        # Read once by each pickler. Made anew each time: any import may register reducers with copyreg.
        return {**copyreg.dispatch_table, **_REDUCERS}


def dumps_by_value(value: Any) -> bytes:
    """Return `value` pickled. Raises whatever pickling it raises."""
    with io.BytesIO() as file:
        ByValuePickler(file).dump(value)
        return file.getvalue()


ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})
"""Exact types whose plain pickle is all there is to them: no class, no reference, no identity."""


def dumps_atoms(value: Any) -> bytes:
    """Return `value`, known to be made of `ATOMS` and tuples, lists and dicts of them, pickled. The fast way."""
    return pickle.dumps(value, PROTOCOL)
