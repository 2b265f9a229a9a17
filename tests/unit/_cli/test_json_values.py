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


class Array:
    """As numpy's, as far as JSON sees it."""

    def tolist(self) -> list[int]:
        return [1, 2]


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
        (math.nan, "null"),
        ({"a": (1, 2.5)}, '{"a":[1,2.5]}'),
        ({1: "ä"}, '{"1":"ä"}'),
        ({3}, "[3]"),
        (Point(1), '{"x":1}'),
        ([Array()], "[[1,2]]"),
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
    "value", [1j, object(), b"bytes", {(1, 2): 3}, _circle(), Hostile(), Array], ids=without_addresses
)
def test_what_is_no_json_is_a_type_or_value_error(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_json(value)


@pytest.mark.parametrize("text", ["", "[1", "NaN", "'a'", b"\xff", "[" * 100_000, "1 2"])
def test_what_can_not_be_parsed_is_said_in_a_short_line(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^--args is not JSON") as error:
        parse_json(text, "--args")
    assert len(str(error.value)) < 200


def test_json_is_parsed() -> None:
    assert parse_json('{"a": [1, 2.5, null]}', "--args") == {"a": [1, 2.5, None]}
