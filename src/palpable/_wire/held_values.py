"""What a function by value leads to, and whether any of it was replaced since.

Followed are globals, closures, defaults and attributes, through other functions and classes by value. All that is found
must be of kinds that never change; then the same objects under the same names are the same function. Whatever is
doubtful counts as changing: to pickle a function anew is always right, only slower.

Runs in: clients, and task processes that submit sub-tasks.
"""

from __future__ import annotations

import enum
import functools
import logging
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from cloudpickle import cloudpickle

from palpable._wire.by_value_pickler import global_names_of
from palpable._wire.caller_classes import goes_by_value
from palpable._wire.class_versions import change_count, version_of
from palpable._wire.function_wrapper import FunctionWrapper

_ABSENT = object()
_MAX_HELD = 200
"""Comparing more than this many objects takes longer than it is worth."""

_CACHED_FUNCTION = type(functools.lru_cache(abs))
_IMMUTABLE = frozenset(
    {int, float, complex, str, bytes, bool, range, type(None), type(Ellipsis), type(NotImplemented), re.Pattern}
)
_IMMUTABLE_BY_NAME = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("pathlib._local", "PosixPath"),
        ("pathlib._local", "PurePosixPath"),
        ("uuid", "UUID"),
        # What the methods of a dataclass hold.
        ("dataclasses", "_DataclassParams"),
        ("dataclasses", "_HAS_DEFAULT_FACTORY_CLASS"),
        ("dataclasses", "_MISSING_TYPE"),
    }
)
"""Named, not imported: most processes do without these modules."""
_METHODS_IN_C = (types.MethodDescriptorType, types.WrapperDescriptorType)
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_FIXED_WITH_ITS_CLASS = frozenset({"__annotations__", "__dataclass_fields__", "__slotnames__"})
"""Made with the class, or by the first pickling of an instance, and only read after that."""

_REPR_WRAPPERS = ("_recursive_repr.<locals>.wrapper", "recursive_repr.<locals>.decorating_function.<locals>.wrapper")
"""The `__repr__` of every dataclass: it holds a set of what it is just showing."""


class HeldValues:
    """Everything a function by value leads to, to tell whether any of it was replaced."""

    def __init__(self, root: Any) -> None:
        self._root = id(root)
        """Not the function itself, which must not be kept alive from here."""
        self._root_parts: tuple[Any, Any, Any] | None = None
        self._functions: list[tuple[Any, Any, Any, Any]] = []
        self._names: list[tuple[Callable[..., Any], str, Any]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self._module_count = 0
        self._class_changes = -1
        """How many changes of classes were seen when this was made; -1 if it leads to no class by value."""

    @property
    def is_empty(self) -> bool:
        parts = (self._root_parts, self._functions, self._names, self._sizes, self._cells, self._module_count)
        return not any(parts)

    def is_unchanged(self, root: Any) -> bool:
        """Whether every name still holds the identical object. `root`: the function this was made for."""
        if self._root_parts is not None:
            code, defaults, keyword_defaults = self._root_parts
            if (
                root.__code__ is not code
                or root.__defaults__ is not defaults
                or root.__kwdefaults__ is not keyword_defaults
            ):
                return False
        try:
            for function, code, defaults, keyword_defaults in self._functions:
                if (
                    function.__code__ is not code
                    or function.__defaults__ is not defaults
                    or function.__kwdefaults__ is not keyword_defaults
                ):
                    return False
            for get, name, value in self._names:
                if get(name, _ABSENT) is not value:
                    return False
            for cell, value in self._cells:
                if cell.cell_contents is not value:
                    return False
        except ValueError:  # a cell was emptied
            return False
        for mapping, size in self._sizes:
            if len(mapping) != size:
                return False
        # Its class may have been another meanwhile, and another function may have carried that to the tasks.
        if self._class_changes >= 0 and self._class_changes != change_count():
            return False
        # A submodule imported since would be pickled along with a function that names it.
        return not self._module_count or self._module_count == len(sys.modules)

    def add(self, value: Any) -> bool:
        """Note `value` and all it leads to; False if any of it could change unseen."""
        kind = type(value)
        if kind in _IMMUTABLE or id(value) in self._seen:
            return True
        self._seen.add(id(value))
        if len(self._seen) > _MAX_HELD:
            return False
        if kind is tuple or kind is frozenset:
            return all(map(self.add, value))
        if kind is types.FunctionType:
            return self._add_function(value)
        if kind is types.ModuleType:
            return self._add_module(value)
        if isinstance(value, type):
            return self._add_class(value)
        if isinstance(value, enum.Enum):  # pickled as class and value
            return not goes_by_value(kind)
        if kind.__module__ == "typing" or kind is types.GenericAlias or kind is types.UnionType:
            return self._add_hint(value)
        return self._add_callable(value) or (kind.__module__, kind.__qualname__) in _IMMUTABLE_BY_NAME

    def _add_callable(self, value: Any) -> bool:
        kind = type(value)
        if kind is types.BuiltinFunctionType:
            return self.add(value.__self__)
        if kind is functools.partial:
            # `func` and `args` can't be set; `keywords` is a dict that can.
            return (
                self.add(value.func)
                and self.add(value.args)
                and self._add_items(value.keywords)
                and self._add_items(vars(value))
            )
        if kind is _CACHED_FUNCTION:
            return cloudpickle._lookup_module_and_qualname(value) is not None or self.add(value.__wrapped__)
        if isinstance(value, FunctionWrapper):
            return value.goes_by_name() or self.add(value.__wrapped__)
        if kind is staticmethod or kind is classmethod:
            return self.add(value.__func__)
        if kind in _METHODS_IN_C:
            return self.add(value.__objclass__)
        if kind is property:
            return all(map(self.add, (value.fget, value.fset, value.fdel)))
        return kind is logging.Logger  # pickled as its name

    def _add_module(self, module: types.ModuleType) -> bool:
        if not cloudpickle._should_pickle_by_reference(module):
            return False
        if hasattr(module, "__path__"):
            self._module_count = len(sys.modules)
        return True

    def _add_function(self, function: types.FunctionType) -> bool:
        if cloudpickle._should_pickle_by_reference(function):
            return True
        code, defaults, keyword_defaults = function.__code__, function.__defaults__, function.__kwdefaults__
        if id(function) == self._root:
            self._root_parts = (code, defaults, keyword_defaults)
        else:
            self._functions.append((function, code, defaults, keyword_defaults))
        if not all(map(self.add, defaults or ())):
            return False
        if keyword_defaults and not self._add_items(keyword_defaults):
            return False
        if not self._add_items(vars(function)) or not all(map(self._add_hint, function.__annotations__.values())):
            return False
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                return False
            self._cells.append((cell, value))
            if not self.add(value) and not (name == "repr_running" and code.co_qualname in _REPR_WRAPPERS):
                return False
        for name in global_names_of(code):
            value = function.__globals__.get(name, _ABSENT)
            self._names.append((function.__globals__.get, name, value))
            if value is not _ABSENT and not self.add(value):
                return False
        return True

    def _add_hint(self, hint: Any) -> bool:
        """Note what an annotation holds: a class, a string, or an expression of `typing`."""
        parts = getattr(hint, "__args__", None)
        if isinstance(parts, tuple):
            return all(map(self._add_hint, parts))
        supertype = getattr(hint, "__supertype__", None)  # of a NewType
        if supertype is not None:
            return self._add_hint(supertype)
        return type(hint).__module__ == "typing" or self.add(hint)

    def _add_class(self, held: type) -> bool:
        if not goes_by_value(held):
            return True
        if type(held) is not type:  # enums, abstract classes: their metaclass keeps state of its own
            return False
        if not all(map(self.add, held.__bases__)):
            return False
        version_of(held)
        self._class_changes = change_count()
        attributes = vars(held)
        self._sizes.append((attributes, len(attributes)))
        for name, value in attributes.items():
            self._names.append((attributes.get, name, value))
            if name not in _FIXED_WITH_ITS_CLASS and type(value) not in _DESCRIPTORS and not self.add(value):
                return False
        return True

    def _add_items(self, items: Mapping[str, Any]) -> bool:
        self._sizes.append((items, len(items)))
        for name, value in items.items():
            self._names.append((items.get, name, value))
            if not self.add(value):
                return False
        return True
