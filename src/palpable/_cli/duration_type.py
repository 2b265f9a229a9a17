"""Lengths of time as people type them: 90, 1.5h, 7d."""

from __future__ import annotations

import math
import re
from typing import Any

import click

UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5, not before
    """Seconds, or a number with one of the units ms, s, m, h, d, w; becomes seconds.

    Args:
        least: the shortest that is allowed, in seconds.
    """

    name = "duration"

    def __init__(self, least: float = 0.0) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            seconds = float(value)
        else:
            match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", value.strip().lower())
            if match is None or match[2] not in UNITS:
                self.fail(f"{value!r} is no length of time, as 90 (seconds), 500ms, 5m, 1.5h or 7d are.", param, ctx)
            seconds = float(match[1]) * UNITS[match[2]]
        if not math.isfinite(seconds) or seconds < self.least:
            self.fail(f"{value!r} is shorter than {self.least:g} s, or endless.", param, ctx)
        return seconds
