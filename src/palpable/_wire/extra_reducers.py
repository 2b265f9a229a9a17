"""How things are pickled that cloudpickle leaves out: written by their name only, or not at all.

A function or alias made in the caller's `__main__` must not be written by its name: a task has another `__main__`.

* `functools`: functions and methods under `lru_cache` and `singledispatch`; `cached_property` before 3.12 (a lock);
* `typing`: `NewType`, `ParamSpec`, `TypeVarTuple`, and the aliases of the `type` statement.

Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from cloudpickle import cloudpickle

from palpable._wire.main_module import bring


def _is_importable(thing: Any) -> bool:
    found = cloudpickle._lookup_module_and_qualname(thing)
    return found is not None and not cloudpickle._is_registered_pickle_by_value(found[0])


# --- functools --------------------------------------------------------------------------------------------------

_SET_BY_WRAPPERS = frozenset(
    {"__wrapped__", "cache_parameters", "cache_clear", "register", "dispatch", "registry", "_clear_cache"}
)


def _own_attributes(wrapper: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(wrapper).items() if name not in _SET_BY_WRAPPERS}


def _reduce_cached(wrapper: Any) -> Any:
    if _is_importable(wrapper):
        return wrapper.__reduce__()
    return _make_cached, (wrapper.__wrapped__, wrapper.cache_parameters(), _own_attributes(wrapper))


def _make_cached(function: Callable[..., Any], parameters: dict[str, Any], attributes: dict[str, Any]) -> Any:
    # Of a function that calls itself not even the name is set yet, so the attributes that are taken from it come too.
    wrapper = functools.lru_cache(**parameters)(function)
    wrapper.__dict__.update(attributes)
    bring(wrapper)
    return wrapper


def _reduce_cached_property(prop: Any) -> Any:
    state = {name: value for name, value in vars(prop).items() if name not in ("func", "lock")}
    return functools.cached_property, (prop.func,), state


def _reduce_dispatching_method(method: Any) -> Any:
    state = {name: value for name, value in vars(method).items() if name != "_method_cache"}  # weak, since Python 3.13
    return functools.singledispatchmethod, (method.func,), state


_dispatcher: Any = functools.singledispatch(lambda _: None)


def reduce_dispatcher(function: types.FunctionType) -> Any:
    """Return how a function under `singledispatch` is written; None if `function` is not one."""
    if function.__code__ is not _dispatcher.__code__:
        return None
    dispatcher: Any = function
    state = (dict(dispatcher.registry), _own_attributes(dispatcher))
    return functools.singledispatch, (dispatcher.__wrapped__,), state, None, None, _set_dispatcher


def _set_dispatcher(dispatcher: Any, state: tuple[dict[Any, Any], dict[str, Any]]) -> None:
    registry, attributes = state
    for kind, function in registry.items():
        if kind is not object:
            dispatcher.register(kind, function)
    dispatcher.__dict__.update(attributes)
    bring(dispatcher)


# --- typing -----------------------------------------------------------------------------------------------------


def _reduce_named(make: Callable[..., Any], parts: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], Any]:
    def reduce(thing: Any) -> Any:
        if _is_importable(thing):
            return thing.__qualname__ if hasattr(thing, "__qualname__") else thing.__name__
        return make, (thing.__name__, thing.__module__, *parts(thing))

    return reduce


def _make_new_type(name: str, module: str, supertype: Any) -> Any:
    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]  # of a name that is not a literal
    made.__module__ = module
    return made


def _make_param_spec(name: str, module: str, class_id: str, flags: dict[str, Any]) -> Any:
    return _tracked(class_id, typing.ParamSpec(name, **flags), module)


def _make_type_var_tuple(name: str, module: str, class_id: str) -> Any:
    return _tracked(class_id, typing.TypeVarTuple(name), module)


def _tracked(class_id: str, made: Any, module: str) -> Any:
    """Return the one that is here under that id, so that what two payloads say of it stays one thing."""
    made.__module__ = module
    return cloudpickle._lookup_class_or_track(class_id, made)


def _flags_of(spec: Any) -> dict[str, Any]:
    return {"bound": spec.__bound__, "covariant": spec.__covariant__, "contravariant": spec.__contravariant__}


def _reduce_alias(alias: Any) -> Any:
    if _is_importable(alias):
        return alias.__name__
    if alias.__type_params__ or not alias.__name__.isidentifier():
        return _make_generic_alias, (alias.__name__, alias.__value__, alias.__type_params__)
    return _make_alias, (alias.__name__, alias.__module__), alias.__value__, None, None, _set_alias


def _make_generic_alias(name: str, value: Any, type_params: tuple[Any, ...]) -> Any:
    return typing.TypeAliasType(name, value, type_params=type_params)  # type: ignore[attr-defined]


def _make_alias(name: str, module: str) -> Any:
    # Its value may name the alias itself (`type Json = dict[str, Json] | str`), so it is filled in afterwards.
    names: dict[str, Any] = {"__name__": module}
    exec(f"type {name} = value_of_alias[0]", names)
    alias = names[name]
    names["value_of_alias"] = _alias_values[id(alias)] = []
    return alias


_alias_values: dict[int, list[Any]] = {}
"""What `_set_alias` has yet to fill."""


def _set_alias(alias: Any, value: Any) -> None:
    _alias_values.pop(id(alias)).append(value)


REDUCERS: dict[type, Callable[[Any], Any]] = {
    type(functools.lru_cache(_is_importable)): _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    functools.singledispatchmethod: _reduce_dispatching_method,
    typing.NewType: _reduce_named(_make_new_type, lambda thing: (thing.__supertype__,)),
    typing.ParamSpec: _reduce_named(
        _make_param_spec, lambda thing: (cloudpickle._get_or_create_tracker_id(thing), _flags_of(thing))
    ),
    typing.TypeVarTuple: _reduce_named(
        _make_type_var_tuple, lambda thing: (cloudpickle._get_or_create_tracker_id(thing),)
    ),
}
if sys.version_info >= (3, 12):
    REDUCERS[typing.TypeAliasType] = _reduce_alias
