"""What users pass is checked at once, with a message that names parameter, value and range."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import pytest

from palpable._connection.checks import check_number, checked_names, checked_task_id, checked_task_ids
from palpable.units.task_options import checked_fields


@pytest.mark.parametrize("value", [0, 1, 10, 0.5, None])
def test_what_is_in_range_passes(value: Any) -> None:
    check_number("x", value, least=0, most=10, may_be_none=True)


@pytest.mark.parametrize(
    ("value", "is_whole", "error", "words"),
    [
        (-1, False, ValueError, "timeout must be a number from 0 to 10, not -1"),
        (11, True, ValueError, "timeout must be a whole number from 0 to 10, not 11"),
        (math.nan, False, ValueError, "not nan"),
        (math.inf, False, ValueError, "not inf"),
        (1.5, True, TypeError, "whole number"),
        ("1", False, TypeError, "not '1'"),
        (True, True, TypeError, "not True"),
        (None, False, TypeError, "not None"),
    ],
)
def test_what_is_not_is_refused_by_name(value: Any, is_whole: bool, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_number("timeout", value, least=0, most=10, is_whole=is_whole)


class Count:
    """A whole number of somebody else's, such as one of numpy."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize("value", [3, Count(3), Level.HIGH])
def test_a_whole_number_of_any_kind_comes_back_as_an_int(value: Any) -> None:
    number = check_number("n", value, least=1, most=10, is_whole=True)
    assert type(number) is int and number == 3


@pytest.mark.parametrize("name", ["priority", "retries", "crash_retries"])
def test_an_option_that_is_a_whole_number_of_any_kind_is_sent_as_an_int(name: str) -> None:
    number = checked_fields({name: Count(3)})[name]
    assert type(number) is int and number == 3


def test_a_whole_number_of_any_kind_is_checked() -> None:
    with pytest.raises(ValueError, match="n must be a whole number from 1 to 10, not 11"):
        check_number("n", Count(11), least=1, most=10, is_whole=True)
    assert check_number("n", None, is_whole=True, may_be_none=True) is None


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_does_not_fit_into_64_bits_is_refused_by_name(value: int, is_whole: bool) -> None:
    bits = value.bit_length()
    with pytest.raises(ValueError, match=rf"timeout must be a .*below 2\*\*63: this one has {bits} bits"):
        check_number("timeout", value, is_whole=is_whole)


def test_the_largest_that_fits_passes() -> None:
    check_number("timeout", 2**63 - 1, is_whole=True)


class Night(enum.StrEnum):
    JOBS = "nightly"


class Text(str):
    """A string that no message takes."""


def test_strings_come_back_as_plain_ones() -> None:
    assert checked_names("tags", None) == []
    assert checked_names("tags", "a") == ["a"]
    plain = [
        *checked_names("tags", (Night.JOBS, Text("a"))),
        checked_task_id(Text("b")),
        *checked_task_ids([Text("c")]),
    ]
    assert plain == ["nightly", "a", "b", "c"]
    assert {type(one) for one in plain} == {str}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: checked_names("tags", 5), "tags must be a string, a list of strings, or None, not 5"),
        (lambda: checked_names("tags", ["a", None]), "each of tags must be a string, not None"),
        (lambda: checked_task_id(b"x"), "task_id must be a string, not b'x'"),
        (lambda: checked_task_ids(["a", 5]), "task_id must be a string, not 5"),
        (lambda: checked_task_ids("abc"), "task_ids must be a list of strings"),
    ],
)
def test_what_are_no_strings_is_refused_by_name(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call()
