"""Durations as people type them."""

from __future__ import annotations

import click
import pytest

from palpable._cli.duration_type import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("5m", 300),
        ("1.5H", 5400),
        ("7 d", 604_800),
        ("1w", 604_800),
    ],
)
def test_a_number_with_or_without_a_unit_is_a_length_of_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1y", "1e9", "nan", "inf", "5m30s", "1,5h", "9" * 400])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_what_is_too_short_is_refused() -> None:
    with pytest.raises(click.BadParameter, match=r"shorter than 0\.001 s"):
        Duration(0.001).convert("0", None, None)
