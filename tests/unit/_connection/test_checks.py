"""Numbers are checked at once, with a message that names parameter, value and range."""

from __future__ import annotations

import math
from typing import Any

import pytest

from palpable._connection.checks import check_number


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
