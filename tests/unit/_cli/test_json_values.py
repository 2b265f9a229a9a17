"""What can be JSON is JSON; what can't is said so, whatever its class does."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any

import pytest

from palpable._cli.json_values import encode_json, parse_json


@dataclasses.dataclass
class Point:
    x: int


@dataclasses.dataclass
class Measure:
    x: float


class Array:
    """As numpy's, as far as JSON sees it."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def tolist(self) -> list[float]:
        return list(self.values)


class Hostile:
    def tolist(self) -> Any:
        raise ZeroDivisionError("a class of the user's may raise anything")


def without_addresses(value: object) -> str:
    """What a test is called must be the same in every process that collects it."""
    return repr(value).partition(" at 0x")[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([2.5, -0.0, 1e300, 2**70], "[2.5,-0.0,1e300,1180591620717411303424]"),
        ({"a": (1, 2.5)}, '{"a":[1,2.5]}'),
        ({1: "ä", 2.5: "ö"}, '{"1":"ä","2.5":"ö"}'),
        ({"a": {1: 2}, "b": {1: 2}}, '{"a":{"1":2},"b":{"1":2}}'),
        ({3}, "[3]"),
        (Point(1), '{"x":1}'),
        ([Array(1, 2)], "[[1,2]]"),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
    ],
    ids=without_addresses,
)
def test_values_are_json(value: Any, text: str) -> None:
    assert bytes(encode_json(value)).decode() == text


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "value",
    [1j, object(), {(1, 2): 3}, _circle(), Hostile(), Array],
    ids=without_addresses,
)
def test_what_is_no_json_is_a_type_or_value_error(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_json(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [1.0, {"a": (-math.inf,)}],
        {math.nan: 1},
        Measure(math.inf),
        {"a": Array(1, math.nan)},
        b"bytes",
        [b"bytes"],
        {"a": bytearray(b"bytes")},
        {b"bytes": 1},
        {1: 2, "1": 3},
        [{datetime.date(2026, 1, 2): 1, "2026-01-02": 2}],
    ],
    ids=without_addresses,
)
def test_what_would_be_read_as_something_else_is_no_json(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON"):
        encode_json(value)


@pytest.mark.parametrize("text", ["", "[1", "NaN", "'a'", b"\xff", "[" * 100_000, "1 2"])
def test_what_can_not_be_parsed_is_said_in_a_short_line(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^--args is not JSON") as error:
        parse_json(text, "--args")
    assert len(str(error.value)) < 200


def test_json_is_parsed() -> None:
    assert parse_json('{"a": [1, 2.5, null]}', "--args") == {"a": [1, 2.5, None]}
