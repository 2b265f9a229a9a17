"""Durations and sizes are shown with the digits that matter."""

from __future__ import annotations

import doctest

import pytest

from palpable._cli import quantities
from palpable._cli.quantities import duration, size


def test_the_examples_hold() -> None:
    assert doctest.testmod(quantities).failed == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (3599.4, "59 m 59 s"),
        (3599.6, "1 h 00 m"),
        (172_799, "47 h 59 m"),
        (172_800, "2 d 00 h"),
    ],
)
def test_a_duration_moves_to_the_next_unit_where_it_would_be_rounded_to_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (3.2e12, "3.2 TB")]
)
def test_a_size_moves_to_the_next_unit_where_it_would_be_rounded_to_it(count: float, text: str) -> None:
    assert size(count) == text
