"""What a task finds in `__main__`: what came by value from its caller's, by name."""

from __future__ import annotations

import gc
import multiprocessing.process
import pickle
import sys
import textwrap
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from palpable._wire import main_module
from palpable._wire.main_module import TaskMain, bring, bring_all
from palpable._wire.payload import dumps_function, loads

CALLERS = """
    import functools

    class Point:
        class Part:
            pass

        def __init__(self, x):
            self.x = x

    def square(x):
        return x * x

    def doubled(function):
        @functools.wraps(function)
        def double(*args):
            return 2 * function(*args)
        return double

    @doubled
    def half(x):
        return x if x < 1 else half(x / 2)

    @functools.lru_cache
    def fib(n: int) -> int:
        "Of Fibonacci."
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    @functools.singledispatch
    def kind(x):
        return "other"

    kind.register(int, lambda x: "int")

    class Caller:
        def __call__(self, x):
            return -x

    cached = functools.lru_cache(Caller())

    def everything():
        return Point, square, half, fib, kind, lambda: cached(1)

    def other():
        return square
"""


@pytest.fixture
def callers() -> dict[str, Any]:
    """The names in the `__main__` of a caller."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(CALLERS), names)
    return names


@pytest.fixture
def task_main(monkeypatch: pytest.MonkeyPatch) -> TaskMain:
    """The `__main__` of a task process, in which this is."""
    monkeypatch.setattr(main_module, "_brought", type(main_module._brought)())
    main = TaskMain()
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


@pytest.mark.usefixtures("task_main")
def test_what_came_with_a_function_can_be_pickled_by_its_name(callers: dict[str, Any]) -> None:
    point_class, square, half, fib, kind, _ = things = loads(dumps_function(callers["everything"]).data)()
    # A class is known here, by its id.
    assert [thing is callers[thing.__name__] for thing in things[:-1]] == [True] + [False] * 4
    for thing in (point_class, square, half, fib, kind, point_class.Part):
        assert pickle.loads(pickle.dumps(thing)) is thing
    assert pickle.loads(pickle.dumps(point_class(3))).x == 3
    assert kind(1) + kind("") == "intother"
    assert (fib.__module__, fib.__doc__) == ("__main__", "Of Fibonacci.")
    assert fib.__annotations__ == callers["fib"].__annotations__
    assert (half(4), fib(20)) == (callers["half"](4), 6765)


def test_what_has_no_name_there_is_not_found(callers: dict[str, Any], task_main: TaskMain) -> None:
    *_, unnamed = loads(dumps_function(callers["everything"]).data)()
    assert unnamed() == -1
    with pytest.raises((pickle.PicklingError, AttributeError)):  # which of them depends on the version of Python
        pickle.dumps(unnamed)
    with pytest.raises(AttributeError, match="module '__main__' has no attribute 'nothing'"):
        task_main.nothing  # noqa: B018
    assert not hasattr(task_main, "__file__")
    assert set(vars(task_main)) == set(vars(ModuleType("__main__")))


def test_it_is_kept_no_longer_than_the_task_keeps_it(callers: dict[str, Any], task_main: TaskMain) -> None:
    function = loads(dumps_function(callers["other"]).data)
    assert task_main.square is function()
    del function
    gc.collect()
    assert not hasattr(task_main, "square")


def test_who_loads_it_and_is_no_task_has_their_own_main(
    callers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    before = dict(vars(main))
    function = loads(dumps_function(callers["everything"]).data)
    assert vars(main) == before and "square" not in main_module._brought
    assert function.__module__ == "__main__"


@pytest.mark.usefixtures("task_main")
def test_of_two_functions_each_finds_what_it_brought_when_it_is_used_again(callers: dict[str, Any]) -> None:
    first, of_first = bring_all(dumps_function(callers["everything"]).data, loads)
    second, of_second = bring_all(dumps_function(callers["other"]).data, loads)
    assert first()[1] is not second()
    for function, brought in ((second, of_second), (first, of_first), (second, of_second)):
        for thing in brought:
            bring(thing)
        square = function() if function is second else function()[1]
        assert pickle.loads(pickle.dumps(square)) is square


@pytest.mark.usefixtures("task_main")
@pytest.mark.parametrize("method", ["spawn", "forkserver", "loky"])
def test_while_there_are_processes_that_find_nothing_it_is_refused(callers: dict[str, Any], method: str) -> None:
    _, square, *_ = loads(dumps_function(callers["everything"]).data)()
    children: set[Any] = multiprocessing.process._children  # type: ignore[attr-defined]
    forked, unforked, ended = _Child("fork"), _Child(method), _Child(None)
    try:
        children.update((forked, ended))
        assert pickle.loads(pickle.dumps(square)) is square
        children.add(unforked)
        with pytest.raises(pickle.PicklingError, match="attribute lookup square on __main__ failed"):
            pickle.dumps(square)
    finally:
        children.difference_update((forked, unforked, ended))


class _Child:
    """What stands for a process of `multiprocessing` that was started in that way."""

    def __init__(self, method: str | None) -> None:
        self._popen = None if method is None else SimpleNamespace(method=method)
