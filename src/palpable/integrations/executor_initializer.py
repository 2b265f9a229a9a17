"""The initializer of an executor, on its way into task processes, with the functions that rely on it.

A pool's initializer leaves things in global variables, and calls find them there. For a function of a module that is
so by itself. What goes by value, as all of `__main__` does, has globals of its own in each pickle; so what the
initializer left is put into those of every function that comes later to a process where it was called.

Runs in: task processes; made in clients.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from palpable._wire.payload import name_of
from palpable.units.task_exceptions import PalpableError


class InitializerFailed(PalpableError):
    """The initializer of an executor raised, in a task process."""


FAILED_TYPES = (f"{InitializerFailed.__module__}.{InitializerFailed.__qualname__}", InitializerFailed.__qualname__)


class Preparation:
    """The initializer of one executor. Pickled together with a function by value, it shares that one's globals."""

    def __init__(self, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
        self._key = secrets.token_hex(8)
        self._initializer = initializer
        self._initargs = initargs

    def ensure(self) -> None:
        """Call the initializer, or, if it has been called in this process, put what it left into our globals.

        Raises:
            InitializerFailed: it raised.
        """
        variables = _globals_of(self._initializer)
        left = _prepared.get(self._key)
        if left is None:
            before = dict(variables)
            try:
                self._initializer(*self._initargs)
            except BaseException as error:
                raise InitializerFailed(f"{type(error).__name__}: {error}") from error
            _prepared[self._key] = variables, _left_behind(before, variables)
        elif left[0] is not variables:
            variables.update(left[1])


_prepared: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
"""In a task process: for each executor whose initializer has been called here, its globals, and what it left there."""


class Prepared:
    """`fn`, called in a process where the initializer has been called."""

    def __init__(self, fn: Callable[..., Any], preparation: Preparation) -> None:
        self._fn = fn
        self._preparation = preparation
        self._is_ready = False
        self.__qualname__ = name_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Once: what the function itself assigns to a global stays, as with functions of a module.
        if not self._is_ready:
            self._preparation.ensure()
            self._is_ready = True
        return self._fn(*args, **kwargs)


def _globals_of(function: Callable[..., object]) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    found = getattr(function, "__globals__", None)  # bound methods have it too
    return found if isinstance(found, dict) else {}


def _left_behind(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what was assigned, and the other values, which may have been changed.

    Functions, classes and modules that were only used are left out: later calls bring their own, perhaps newer.
    """
    return {
        name: value
        for name, value in after.items()
        if before.get(name, _missing) is not value
        or not (name.startswith("__") or isinstance(value, (FunctionType, ModuleType, type)))
    }


_missing = object()
