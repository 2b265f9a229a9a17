"""A short form for the functions that most tasks are: by value, without a closure, holding nothing but simple things.

cloudpickle writes a function as a code object of 18 parts and a state of 11 more, which are put together by four
functions of its own. In a task process all of that is code and memory not touched before: 35 memory pages more to copy
than for the short form, of 190 that a small task wrote to. The short form is the code, marshalled, with whatever the
function's type does not set by itself. What it makes is the same, down to the globals it finds.

Taken are functions whose defaults, annotations and used globals are numbers, strings, bytes, None, importable modules,
or functions and classes that go by their name. All others are written by cloudpickle; so is a function with anything
unusual about it. The first byte tells which it is: a pickle begins with 0x80.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
import marshal
import pickle
import sys
from importlib.util import MAGIC_NUMBER
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from cloudpickle import cloudpickle

from palpable._wire.by_value_pickler import ATOMS, PROTOCOL, global_names_of
from palpable._wire.function_wrapper import FunctionWrapper

MARK = b"\0" + MAGIC_NUMBER
"""The first bytes of the short form. Another version of Python has other bytecode, and another mark."""
_MARK_BYTES = len(MARK)

_MARSHAL_VERSION = 2
"""The last one that writes no references, which depend on reference counts: the same function is the same bytes."""

_FILE_NAMES = ("__package__", "__name__", "__path__", "__file__")
"""Globals that relative imports and the like use; cloudpickle takes these along too."""


def dumps_plain(function: Any) -> bytes | None:
    """Return `function` in the short form; None if it is one for cloudpickle."""
    if (
        type(function) is not FunctionType
        or function.__closure__ is not None
        or function.__dict__
        or getattr(function, "__type_params__", None)
        or cloudpickle._should_pickle_by_reference(function)
    ):
        return None
    code = function.__code__
    names = [name for name in dict.fromkeys(global_names_of(code)) if name in function.__globals__]
    simple: dict[str, Any] = {}
    modules: dict[str, str] = {}
    named: dict[str, Any] = {}
    for name in [*_FILE_NAMES, *names]:
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        if type(value) in ATOMS:
            simple[name] = value
        elif type(value) is ModuleType and _is_imported(value):
            modules[name] = value.__name__
        elif _goes_by_name(value):
            named[name] = value
        else:
            return None
    attributes, annotations = _attributes_of(function), function.__annotations__
    if attributes is None or not all(type(value) in ATOMS or _goes_by_name(value) for value in annotations.values()):
        return None
    held = [function.__globals__[name] for name in names]
    submodules = [module.__name__ for module in cloudpickle._find_imported_submodules(code, held)]
    try:
        by_name = pickle.dumps((named, annotations), PROTOCOL) if named or annotations else b""
        return MARK + marshal.dumps(
            (code, simple, function.__defaults__, attributes, by_name, modules, submodules), _MARSHAL_VERSION
        )
    except (pickle.PicklingError, AttributeError, TypeError, ValueError):
        return None  # it can't be found by its name after all, or the code was made by other means than compiling


def loads_plain(data: bytes) -> FunctionType:
    """Return the function of the short form in `data`.

    Raises:
        UnpicklingError: another version of Python made it.
    """
    if data[:_MARK_BYTES] != MARK:
        raise pickle.UnpicklingError(
            f"a function was sent from another version of Python; this is {sys.version.split()[0]}. "
            f"Functions that are defined in a script can only run where the same version is used."
        )
    code, simple, defaults, attributes, by_name, modules, submodules = marshal.loads(data[_MARK_BYTES:])
    simple["__builtins__"] = _BUILTINS
    function = FunctionType(code, simple, None, defaults)
    if attributes or by_name or modules:
        _complete(function, attributes, by_name, modules, submodules)
    return function


_BUILTINS: Any = vars(sys.modules["builtins"])


def _complete(
    function: FunctionType, attributes: dict[str, Any], by_name: bytes, modules: dict[str, str], submodules: list[str]
) -> None:
    for name, module in modules.items():
        function.__globals__[name] = sys.modules.get(module) or importlib.import_module(module)
    for module in submodules:
        importlib.import_module(module)
    if by_name:
        named, annotations = pickle.loads(by_name)
        function.__globals__.update(named)
        function.__annotations__ = annotations
    for name, value in attributes.items():
        setattr(function, name, value)


def _attributes_of(function: FunctionType) -> dict[str, Any] | None:
    """Return the attributes that differ from what a new function of that code gets; None if one is not simple."""
    code = function.__code__
    defaults, kwdefaults = function.__defaults__, function.__kwdefaults__
    if not (ATOMS.issuperset(map(type, defaults or ())) and ATOMS.issuperset(map(type, (kwdefaults or {}).values()))):
        return None
    new = FunctionType(code, {"__name__": function.__globals__.get("__name__")})
    attributes = {}
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__kwdefaults__"):
        value = getattr(function, name)
        if value != getattr(new, name) or type(value) is not type(getattr(new, name)):
            if type(value) not in ATOMS and name != "__kwdefaults__":
                return None
            attributes[name] = value
    return attributes


def _is_imported(module: ModuleType) -> bool:
    return bool(cloudpickle._should_pickle_by_reference(module)) and sys.modules.get(module.__name__) is module


def _goes_by_name(value: Any) -> bool:
    """Whether plain pickle writes `value` as a name, and is right to."""
    kind = type(value)
    if kind is FunctionType or issubclass(kind, type):
        return bool(cloudpickle._should_pickle_by_reference(value)) and value not in cloudpickle._BUILTIN_TYPE_NAMES
    if kind is BuiltinFunctionType:
        return type(value.__self__) is ModuleType
    return issubclass(kind, FunctionWrapper) and value.goes_by_name()
