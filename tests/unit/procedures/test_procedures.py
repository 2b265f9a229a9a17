"""What a task does."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from palpable import MapFunction, Procedure, RunFunction


class FakeMessenger:
    """Keeps what it was asked to map."""

    def map(self, function: Any, params: Any) -> list[Any]:
        self.mapped = (function, params)
        return [function(param) for param in params]


class Add(Procedure):
    def __init__(self, a: Any, b: Any) -> None:
        self.a = a
        self.b = b

    def run(self, messenger: Any) -> Any:
        return self.a + self.b


class Array:
    """Compares as arrays do: item by item, with no single answer."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def test_a_subclass_keeps_its_parameters_and_runs() -> None:
    assert Add(1, 2).run(None) == 3


def test_the_base_does_nothing() -> None:
    class Idle(Procedure):
        pass

    with pytest.raises(NotImplementedError, match="Idle"):
        Idle().run(None)  # type: ignore[arg-type]


def test_an_attribute_is_set_once() -> None:
    add = Add(1, [2])
    with pytest.raises(AttributeError, match=r"Add\.a is set already"):
        add.a = 5
    add.a = 1
    add.b = [2]
    add.c = "new"
    assert (add.a, add.b, add.c) == (1, [2], "new")


def test_equal_values_of_other_types_are_other_values() -> None:
    add = Add(1, 2)
    for other in (True, 1.0):
        with pytest.raises(AttributeError):
            add.a = other


def test_values_that_cannot_be_compared_are_the_same_only_if_identical() -> None:
    array = Array()
    add = Add(array, 0)
    add.a = array
    with pytest.raises(AttributeError):
        add.a = Array()


def test_a_procedure_survives_pickling_and_copying_and_stays_fixed() -> None:
    for copied in (pickle.loads(pickle.dumps(Add(1, 2))), copy.deepcopy(Add(1, 2))):
        assert copied.run(None) == 3
        with pytest.raises(AttributeError):
            copied.a = 9


def test_run_function_calls_its_function() -> None:
    assert RunFunction(pow, 2, 5, mod=7).run(None) == 4  # type: ignore[arg-type]
    assert RunFunction(dict, a=1).run(None) == {"a": 1}  # type: ignore[arg-type]
    assert RunFunction(function=list).run(None) == []  # type: ignore[arg-type]


def test_map_function_asks_the_messenger_to_map() -> None:
    messenger = FakeMessenger()
    assert MapFunction(abs, iter([-1, 2])).run(messenger) == [1, 2]  # type: ignore[arg-type]
    assert messenger.mapped == (abs, [-1, 2])
