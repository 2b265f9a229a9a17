"""Calls and results as bytes, and the errors that say what can't be."""

from __future__ import annotations

import enum
import io
import math
import pickle
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from palpable import RunFunction
from palpable._wire import caller_classes
from palpable._wire.by_value_pickler import PROTOCOL, ByValuePickler
from palpable._wire.caller_classes import dumps_for_caller, find_or_build
from palpable._wire.culprit import find_culprit, kind_of
from palpable._wire.messages import TaskReport
from palpable._wire.payload import (
    dumps_call,
    dumps_param,
    dumps_params,
    dumps_procedure,
    dumps_result,
    loads,
    result_of,
)
from palpable.units.task_exceptions import NotPicklable, NotUnpicklable


class Number(int):
    """Not an atom: its exact type is not `int`."""


class Level(enum.IntEnum):
    LOW = 1


VALUES: list[Any] = [
    *(None, True, 0, -(2**200), 1.5, math.inf, 2j, "text", "\ud800", b"bytes", ..., NotImplemented),
    *((1, (2,)), [], {"a": [1]}, {1}, frozenset({3}), bytearray(b"x"), range(3), slice(1, 2), int, len, type(None)),
    *(Number(3), Level.LOW, math, memoryview(b"abc")),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value).partition(" at 0x")[0])
def test_a_value_arrives_equal_and_of_its_type(value: Any) -> None:
    expected = value.tobytes() if isinstance(value, memoryview) else value
    for arrived in (
        loads(dumps_call((value,), {}))[0][0],
        loads(dumps_call((), {"name": value}))[1]["name"],
        loads(dumps_params([value, 1]))[0],
        loads(dumps_result(value)),
    ):
        assert arrived == expected and type(arrived) is type(expected)


@pytest.mark.parametrize("params", [range(5), range(10, 0, -3), (1, "b"), [None]])
def test_params_of_a_chunk_arrive_in_order(params: Sequence[Any]) -> None:
    assert list(loads(dumps_params(params))) == list(params)


def test_a_range_travels_as_its_numbers() -> None:
    assert len(dumps_params(range(10**15))) < 100


def test_a_call_keeps_positions_and_names() -> None:
    assert loads(dumps_call((1, "a"), {"b": None, "self": 2})) == ((1, "a"), {"b": None, "self": 2})
    assert loads(dumps_call((), {})) == ((), {})


def test_plain_pickle_is_used_only_for_atoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palpable._wire.payload.dumps_by_value", lambda value: b"by value")
    assert dumps_call((1, "a", None), {"b": 2.5}) == pickle.dumps(((1, "a", None), {"b": 2.5}), PROTOCOL)
    for value in ([1], (1,), Number(1), Level.LOW, int):
        assert dumps_call((value,), {}) == dumps_call((), {"a": value}) == b"by value"


def test_arguments_that_cannot_be_pickled_are_named() -> None:
    lock = threading.Lock()
    for args, kwargs, name in [
        ((1, lock), {}, "argument 2 (a _thread.lock)"),
        ((), {"key": lock}, "argument 'key' (a _thread.lock)"),
        (([1, {"a": lock}],), {}, "argument 1 (a list) can't be pickled, because of its item 1 -> item 'a' (a _thread"),
    ]:
        with pytest.raises(NotPicklable) as caught:
            dumps_call(args, kwargs)
        assert name in str(caught.value) and "inside the function" in str(caught.value)
        assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(NotPicklable, match=r"params\[21\] \(a _thread.lock\)"):
        dumps_params([1, lock], 20)
    with pytest.raises(NotPicklable, match=r"params\[7\] \(a list\) .* because of its item 0"):
        dumps_param([lock], 7)
    with pytest.raises(NotPicklable, match=r"the procedure RunFunction .* its attribute 'args' -> item 0"):
        dumps_procedure(RunFunction(print, lock))
    with pytest.raises(NotPicklable, match=r"the result \(a list\) .* item 0 .* Return plain data"):
        dumps_result([lock])


class Hostile:
    """Raises whatever it is asked to."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("no"), RecursionError(), MemoryError(), AttributeError("x")])
def test_whatever_pickling_raises_is_a_clear_error(error: Exception) -> None:
    with pytest.raises(NotPicklable, match="Hostile"):
        dumps_call((Hostile(error),), {})
    with pytest.raises(NotPicklable, match="Hostile"):
        dumps_result(Hostile(error))


def test_an_interrupt_while_pickling_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        dumps_call((Hostile(KeyboardInterrupt()),), {})


def test_nesting_too_deep_is_a_clear_error() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(NotPicklable, match="recursion"):
        dumps_result(nested)
    while nested:  # taken apart step by step: freeing it at once recurses too
        nested = nested.pop()


def test_a_result_that_cannot_be_unpickled_here_says_why() -> None:
    report = TaskReport("t", "succeeded", "succeeded", b"cmodule_that_is_nowhere\nname\n.")
    with pytest.raises(NotUnpicklable, match=r"task t .*module_that_is_nowhere.* did succeed") as caught:
        result_of(report)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    for garbage in (b"", b"\x80", b"garbage", pickle.dumps([1])[:-3]):
        with pytest.raises(NotUnpicklable):
            result_of(TaskReport("t", "succeeded", "succeeded", garbage))
    assert result_of(TaskReport("t", "succeeded", "succeeded")) is None


# --- classes that travel by value -------------------------------------------------------------------------------


def test_a_class_that_is_known_is_not_even_read_from_its_definition() -> None:
    class Known:
        pass

    instance = loads(dumps_result(Known()))
    assert type(instance) is Known
    from cloudpickle import cloudpickle

    assert find_or_build(cloudpickle._get_or_create_tracker_id(Known), b"not a pickle") is Known


def test_an_unknown_class_is_built_once() -> None:
    data = _pickled_in_another_life()
    first, second = loads(data), loads(data)
    assert type(first) is type(second)
    assert (first.hello(), type(first).__name__) == ("hello", "Unknown")


def test_threads_that_meet_an_unknown_class_at_once_get_one_and_whole() -> None:
    data = _pickled_in_another_life()
    found: list[Any] = []
    barrier = threading.Barrier(6)

    def load() -> None:
        barrier.wait()
        found.append(loads(data).hello())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == ["hello"] * 6


def test_a_class_that_failed_to_be_built_leaves_nothing_behind() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class Unknown:\n    module = None\n", names)
    made = names["Unknown"]
    made.needs = _NeedsModule()
    data = dumps_for_caller(made())
    class_id = _forget(made)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            loads(data)
        assert caller_classes._find(class_id) is None and not caller_classes._unfinished


def test_a_class_whose_definition_did_not_travel_is_a_clear_error() -> None:
    with pytest.raises(pickle.UnpicklingError, match="did not travel"):
        find_or_build("an id that is nowhere", b"")


class _NeedsModule:
    def __reduce__(self) -> Any:
        return __import__, ("module_that_is_nowhere",)


def _pickled_in_another_life() -> bytes:
    """A pickled instance of a class that nobody here knows."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class Unknown:\n    def hello(self): return 'hello'\n", names)
    data = dumps_result(names["Unknown"]())
    _forget(names["Unknown"])
    return data


def _forget(made: type) -> str:
    from cloudpickle import cloudpickle

    class_id: str = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.pop(made)
    del cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[class_id]
    return class_id


# --- naming the part --------------------------------------------------------------------------------------------


def test_the_innermost_part_is_named() -> None:
    class Holder:
        def __init__(self, held: Any) -> None:
            self.held = held

    lock = threading.Lock()
    for value, way in [
        ({"a": [1, (lock,)]}, "item 'a' -> item 1 -> item 0 (a _thread.lock)"),
        (Holder({lock}), "attribute 'held' -> an item (a _thread.lock)"),
        ({lock: 1}, f"key {repr(lock)[:37]}... (a _thread.lock)"),
        (ValueError(lock), "argument 0 (a _thread.lock)"),
        (lock, ""),
    ]:
        assert find_culprit(value, dumps_for_caller) == way


def test_looking_for_the_part_ends_even_where_parts_refer_to_each_other() -> None:
    lock = threading.Lock()
    circle: list[Any] = [lock]
    circle.insert(0, [circle])
    assert find_culprit(circle, dumps_for_caller).endswith("(a _thread.lock)")
    wide = [[index] for index in range(5000)] + [[lock]]
    assert find_culprit(wide, dumps_for_caller) == ""


def test_a_part_that_cannot_be_looked_into_is_not() -> None:
    class Blind:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

        def __reduce__(self) -> Any:
            raise RuntimeError

    assert find_culprit(Blind(), dumps_for_caller) == ""
    assert kind_of(Blind()).endswith("Blind") and kind_of(3) == "int"


def test_a_class_by_value_keeps_its_qualified_name() -> None:
    class Outer:
        class Inner(ValueError):
            pass

    make, (*parts, _, extra), *_ = ByValuePickler(io.BytesIO()).reduce_class(Outer.Inner)
    made = make(*parts, None, extra)  # without the id by which it would be recognised in this process
    assert made is not Outer.Inner
    assert (made.__name__, made.__qualname__) == ("Inner", Outer.Inner.__qualname__)
