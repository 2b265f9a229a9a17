"""An object that stands in a module under the name of the function it wraps, and how it travels.

pickle writes a function as its name, and refuses when another object has that name: here the wrapper has it. So the
wrapper is written as the name, and the function by way of its wrapper. Where the name is no use in another process
(`__main__`, a local function), the function goes by value.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cloudpickle import cloudpickle


class FunctionWrapper:
    """The base of such objects. A subclass is called as the function is, and says how it is made again (`remake`)."""

    __module__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def remake(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what to call in another process, and with what besides the function, to have the same again."""
        raise NotImplementedError

    def __reduce__(self) -> str | tuple[Any, ...]:
        """For the pickle of the standard library, for which `__main__` is a module like others."""
        return _reduced(self, _under_its_name(self, is_main_known=True))

    def sent(self) -> Any:
        """Return what stands for the function in another process: itself, its twin of that name, or the function."""
        return _under_its_name(self) or self.__wrapped__

    def goes_by_name(self) -> bool:
        """Whether it is written as a name, so that nothing it holds matters."""
        return _under_its_name(self) is self


def reduce_wrapper(wrapper: FunctionWrapper) -> str | tuple[Any, ...]:
    """For picklers that write by value what can't be imported."""
    return _reduced(wrapper, _under_its_name(wrapper))


def _reduced(wrapper: FunctionWrapper, twin: FunctionWrapper | None) -> str | tuple[Any, ...]:
    if twin is wrapper:
        return wrapper.__qualname__
    make, facts = wrapper.remake()
    return make, (twin or wrapper.__wrapped__, *facts)


def _under_its_name(wrapper: FunctionWrapper, *, is_main_known: bool = False) -> FunctionWrapper | None:
    """Return the wrapper of the same function that has its name in its module, perhaps `wrapper` itself."""
    qualified, module = wrapper.__qualname__, sys.modules.get(wrapper.__module__)
    if module is None or "<locals>" in qualified:
        return None
    if not is_main_known and (wrapper.__module__ == "__main__" or cloudpickle._is_registered_pickle_by_value(module)):
        return None
    found: Any = module
    for name in qualified.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, FunctionWrapper) and found.__wrapped__ is wrapper.__wrapped__ else None
