"""`@task`: a function that carries the options of its tasks.

Runs in: wherever the module of such a function is imported, task processes too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, final, overload

from palpable._wire.by_value_pickler import add_reducer
from palpable._wire.function_wrapper import FunctionWrapper, reduce_wrapper
from palpable.units.task_options import Fields, checked_fields

if TYPE_CHECKING:
    from typing import Self, Unpack

    from palpable.units.task_options import OptionArguments

P = ParamSpec("P")
T = TypeVar("T")


@final
class TaskFunction(FunctionWrapper, Generic[P, T]):
    """A function with options. Called, it is the function; submitted, its tasks have the options. Made by `@task`.

    What the call itself says (`client.options(...)`) wins over the options of the function, and these win over those
    of the client. It can be pickled wherever the function could, and works as a method too.

    Attributes:
        __wrapped__: the function.
    """

    _fields: Fields

    def __init__(self, function: Callable[P, T], fields: Fields) -> None:
        functools.update_wrapper(self, function)
        # After the line above, which takes over all attributes of the function.
        self._fields = fields

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        function: Callable[P, T] = self.__wrapped__
        return function(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., T]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def options(self, **options: Unpack[OptionArguments]) -> TaskFunction[P, T]:
        """Return the same function with these options on top of its own.

        What is left out stays as it is; None stands for the default. The options are those of `Client.options`,
        without `idempotency_key`.

        Raises:
            TypeError, ValueError: there is no such option, or its value is out of range; the message names it.
        """
        return TaskFunction(self.__wrapped__, {**self._fields, **checked_fields(options, whose="a function")})

    def remake(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _remade, (self._fields,)

    def __repr__(self) -> str:
        return f"<task {self.__module__}.{self.__qualname__}>"


def _remade(function: Any, fields: Fields) -> TaskFunction[..., Any]:
    return TaskFunction(function.__wrapped__ if type(function) is TaskFunction else function, fields)


@overload
def task(function: Callable[P, T], /) -> TaskFunction[P, T]: ...
@overload
def task(**options: Unpack[OptionArguments]) -> Callable[[Callable[P, T]], TaskFunction[P, T]]: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """Give a function options: with them it is submitted, whoever does it.

    `client.options(...)` wins over these, option by option, and these over the options of the client. They are those
    of `Client.options`, without `idempotency_key`. The function itself can be called as before.

    Raises:
        TypeError, ValueError: there is no such option, or its value is out of range; the message names it.

    Example:
        >>> @task(retries=3, timeout_seconds=60, name="fetch")
        ... def fetch_page(url):
        ...     return len(url)
        >>> fetch_page("https://example.org")
        19
        >>> client.submit(fetch_page, "https://example.org")  # doctest: +SKIP
    """
    fields = checked_fields(options, whose="a function")

    def wrapped(function: Any) -> TaskFunction[..., Any]:
        if not callable(function):
            raise TypeError(f"@task is for functions, not for {function!r}")
        if isinstance(function, type | staticmethod | classmethod):
            raise TypeError(
                f"@task is for functions, not for {function!r}: decorate a function that makes the object, or put "
                f"@task below @staticmethod or @classmethod"
            )
        if type(function) is TaskFunction:
            return TaskFunction(function.__wrapped__, {**function._fields, **fields})
        return TaskFunction(function, fields)

    return wrapped if function is None else wrapped(function)


def fields_of(function: Any) -> Fields | None:
    """Return the options a function carries, also as a method or inside a `functools.partial`; None if it does not."""
    while type(function) is not FunctionType:
        if type(function) is TaskFunction:
            return function._fields
        if type(function) is MethodType:
            function = function.__func__
        elif type(function) is functools.partial:
            function = function.func
        else:
            return None
    return None


add_reducer(TaskFunction, reduce_wrapper)
