"""The pickler for what travels from a caller to a task: what cannot be imported there goes by value.

Prior art: cloudpickle, which does nearly all of it. Added here:

* the things of `extra_reducers`;
* classes that are defined inside others or in functions keep their qualified name;
* classes with `__slots__` have slots again, where cloudpickle gives their instances a dict;
* in a task what is of the caller's `__main__` can be found in `__main__`;
* the globals that a class statement inside a function reads in its body;
* a dispatch table that is one dict: a look-up for every object in cloudpickle's `ChainMap` is slow.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import abc
import copyreg
import dis
import io
import pickle
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from cloudpickle import cloudpickle

from palpable._wire.class_versions import version_of
from palpable._wire.extra_reducers import REDUCERS, reduce_dispatcher
from palpable._wire.main_module import set_class, set_function

PROTOCOL = 5

CLASS_MAKERS = (cloudpickle._make_skeleton_class, cloudpickle._make_skeleton_enum)
_REDUCERS: dict[type, Callable[[Any], Any]] = {**cloudpickle.Pickler._dispatch_table, **REDUCERS}
_registered: dict[type, Any] = {}
_merged: dict[type, Any] = _REDUCERS


def _merged_reducers() -> dict[type, Callable[[Any], Any]]:
    """Return our reducers and those registered with copyreg, which any import may add to."""
    global _registered, _merged
    if copyreg.dispatch_table != _registered:
        registered = dict(copyreg.dispatch_table)
        # The table is replaced, never changed: a pickler of another thread may be reading it.
        _merged = {**registered, **_REDUCERS}
        _registered = registered
    return _merged


def add_reducer(kind: type, reducer: Callable[[Any], Any]) -> None:
    """Have the instances of `kind` written by `reducer`, by every pickler that writes by value, cloudpickle's too.

    The pickle of the standard library does not look here.
    """
    global _merged
    cloudpickle.Pickler._dispatch_table[kind] = _REDUCERS[kind] = reducer
    _merged = {**_merged, kind: reducer}


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, with the additions named above."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, PROTOCOL)

    @property
    def dispatch_table(self) -> dict[type, Callable[[Any], Any]]:
        return _merged_reducers()

    def reducer_override(self, obj: Any) -> Any:
        # Called for every object that is not of a basic type, so what is neither class nor function leaves at once.
        if issubclass(type(obj), type):
            return self.reduce_class(obj)
        if type(obj) is types.FunctionType:
            reduced = super().reducer_override(obj)
            return reduced if reduced is NotImplemented else reduce_dispatcher(obj) or reduced
        return NotImplemented

    def reduce_class(self, held: type) -> Any:
        """Return how a class is written: a reduce tuple if by value, NotImplemented if by its name."""
        reduced = super().reducer_override(held)
        if type(reduced) is not tuple or reduced[0] not in CLASS_MAKERS:
            return reduced
        reduced = (*reduced[:-1], set_class)
        if version := version_of(held):
            make, (*args, _), *rest = reduced  # the last argument is for uses like this one, and is not looked at
            reduced = (make, (*args, {"version": version}), *rest)
        if reduced[0] is not cloudpickle._make_skeleton_class:
            return reduced
        if held.__qualname__ != held.__name__:
            reduced = _with_qualname(held, reduced)
        if type(held).__module__.partition(".")[0] == "msgspec":
            raise pickle.PicklingError(f"the struct {held.__qualname__!r} must be defined in a module, not in a script")
        return _with_slots(held, reduced) if _has_slots(held) else reduced

    def _dynamic_function_reduce(self, function: types.FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(function)
        held = reduced[2][1]["__globals__"]
        for name in _names_in_class_bodies(function.__code__):
            if name in function.__globals__:
                held[name] = function.__globals__[name]
        return *reduced[:-1], set_function


def _with_qualname(held: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    make, (metaclass, name, bases, attributes, *others), *rest = reduced
    return make, (metaclass, name, bases, {**attributes, "__qualname__": held.__qualname__}, *others), *rest


def _has_slots(held: type) -> bool:
    # Tuples have no slots of their own, and the maker of named ones does not take an empty list of them.
    # Metaclasses of other libraries make slots in their own ways.
    is_common = type(held) is type or issubclass(type(held), abc.ABCMeta)
    return is_common and "__slots__" in vars(held) and not issubclass(held, tuple)


def _with_slots(slotted: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    make, (metaclass, name, bases, attributes, class_id, extra), (state, slot_state), *rest = reduced
    slots = vars(slotted)["__slots__"]
    if not isinstance(slots, str | dict):
        slots = tuple(slots)
    state = {key: value for key, value in state.items() if key != "__slots__"}
    attributes = {**attributes, "__slots__": slots}
    return make, (metaclass, name, bases, attributes, class_id, extra), (state, slot_state), *rest


def global_names_of(code: types.CodeType) -> list[str]:
    """Return the names of the globals that `code` reads or sets, in the functions and classes it defines too."""
    return [*cloudpickle._extract_code_globals(code), *_names_in_class_bodies(code)]


_class_body_names: weakref.WeakKeyDictionary[types.CodeType, tuple[str, ...]] = weakref.WeakKeyDictionary()


def _names_in_class_bodies(code: types.CodeType) -> tuple[str, ...]:
    """Return the names that class statements in `code` look up where it may be a global: not by LOAD_GLOBAL there."""
    if not any(isinstance(const, types.CodeType) for const in code.co_consts):
        return ()
    names = _class_body_names.get(code)
    if names is None:
        names = tuple(dict.fromkeys(name for inner in _inner_code(code) for name in _loaded_names(inner)))
        _class_body_names[code] = names
    return names


def _inner_code(code: types.CodeType) -> Iterator[types.CodeType]:
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield const
            yield from _inner_code(const)


def _loaded_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield instruction.argval


def dumps_by_value(value: Any) -> bytes:
    """Return `value` pickled. Raises whatever pickling it raises."""
    with io.BytesIO() as file:
        ByValuePickler(file).dump(value)
        return file.getvalue()


ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})
"""Exact types whose plain pickle is all there is to them: no class, no reference, no identity."""
