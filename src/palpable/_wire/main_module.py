"""`__main__` in a task process: of its own it has nothing, but what a task brought of its caller's is found in it.

Functions and classes of a caller's `__main__` go to a task by value. There the standard library writes them by their
names, as it does with all functions and classes: `multiprocessing` when a task hands one to a pool of its own, pickle
when a task saves an instance. That they are found under these names is what makes both work, as in a program that was
forked.

They are not put into the module: in a process that runs many tasks they would be kept for ever, and what one program
had would be seen by the next. Only who asks for a name gets what the process holds under it; the latest that came, if
several have it, since what is written by name has to be the very object that the name leads to.

A process that was not forked from this one finds nothing under these names, as its `__main__` is another. A pool of
such processes would wait for a task that none of them can read. So while there are any, nothing is found here either,
and what would be sent to them is refused, as ever.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from cloudpickle import cloudpickle

MAIN = "__main__"

_brought: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
"""By name, what is found in `__main__`."""
_loading: list[Any] | None = None
"""What `bring_all` has brought so far, while it loads."""


class TaskMain(ModuleType):
    """The module `__main__` of a task process."""

    def __init__(self) -> None:
        super().__init__(MAIN)

    def __getattr__(self, name: str) -> Any:
        found = _brought.get(name)
        if found is None or _has_unforked_children():
            raise AttributeError(f"module {MAIN!r} has no attribute {name!r}", name=name, obj=self)
        return found


def _has_unforked_children() -> bool:
    """Whether `multiprocessing` runs processes here that it did not fork."""
    process = sys.modules.get("multiprocessing.process")
    # A copy, made at once: other threads start processes meanwhile.
    children = list(getattr(process, "_children", ()))
    return any(getattr(child._popen, "method", "fork") != "fork" for child in children)


def bring(thing: Any) -> None:
    """Let a function or class that came by value be found by its name, if it is of `__main__`, and this is a task."""
    if getattr(thing, "__module__", None) != MAIN or type(sys.modules.get(MAIN)) is not TaskMain:
        return
    name = getattr(thing, "__qualname__", "")  # what is cached may be an instance, which has none
    if not name.isidentifier():  # it is found in what it is defined in, or by no name
        return
    # Of a function and its decorated form the latter has the name, whichever comes first; and of two such forms the
    # first: pickle makes one too many, for the moment, where a function leads to itself.
    wrapped = getattr(_brought.get(name), "__wrapped__", None)
    if wrapped is None or (wrapped is not thing and wrapped is not getattr(thing, "__wrapped__", None)):
        _brought[name] = thing
        if _loading is not None:
            _loading.append(thing)


def bring_all(data: bytes, load: Callable[[bytes], Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return `load(data)`, and what it has brought, to be brought again when what was loaded is used again."""
    global _loading
    _loading = []
    try:
        return load(data), tuple(_loading)
    finally:
        _loading = None


def set_function(function: FunctionType, state: Any) -> None:
    """Complete a function that came by value, as cloudpickle does."""
    cloudpickle._function_setstate(function, state)
    bring(function)


def set_class(made: type, state: Any) -> None:
    """Complete a class that came by value, as cloudpickle does."""
    cloudpickle._class_setstate(made, state)
    bring(made)
