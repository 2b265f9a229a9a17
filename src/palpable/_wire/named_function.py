"""A short form for functions that can be imported: the names of module and function, in plain text.

A pickle says no more, but takes an unpickler to read. Of this form the server can tell which module a function is in,
without unpickling, so that zygotes have its code ready (`palpable._zygote.prepared_modules`).

The first byte tells the form: a pickle begins with 0x80, the form of `plain_function` with 0.

Runs in: clients, the server and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from cloudpickle import cloudpickle

from palpable._wire.function_forms import NAMED_MARK
from palpable._wire.function_wrapper import FunctionWrapper


def dumps_named(function: Any) -> bytes | None:
    """Return `function` in the short form; None if it is not one that goes by its name."""
    if isinstance(function, FunctionWrapper) and function.goes_by_name():
        return NAMED_MARK + f"{function.__module__}\0{function.__qualname__}".encode()
    if type(function) is not FunctionType or not cloudpickle._should_pickle_by_reference(function):
        return None
    found = cloudpickle._lookup_module_and_qualname(function)
    if found is None:
        return None
    module, qualname = found
    name = function.__module__ or module.__name__
    if sys.modules.get(name) is not module:
        return None
    try:
        return NAMED_MARK + f"{name}\0{qualname}".encode()
    except UnicodeEncodeError:
        return None


def loads_named(data: bytes, import_module: Callable[[str], Any] = importlib.import_module) -> Any:
    """Return the function named in `data`.

    Args:
        import_module: returns a module, imported if need be.

    Raises:
        ImportError, AttributeError: there is none of that name.
        BaseException: whatever importing its module raises.
    """
    module, _, qualname = data[1:].decode().partition("\0")
    found = import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found
