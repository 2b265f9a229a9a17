"""Numbers that users pass, checked at once."""

from __future__ import annotations

import math
from typing import Any


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    is_whole: bool = False,
    may_be_none: bool = False,
    meaning: str = "",
) -> None:
    """Check one number of a call.

    Args:
        name: of the parameter, for the message.
        meaning: said of the allowed range, if the range does not speak for itself.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range, or not a number (NaN).

    Example:
        >>> check_number("priority", 3, least=0, is_whole=True)
        >>> check_number("priority", -1, least=0, is_whole=True)
        Traceback (most recent call last):
        ValueError: priority must be a whole number from 0, not -1
    """
    if value is None and may_be_none:
        return
    allowed = "a whole number" if is_whole else "a number"
    if least > -math.inf:
        allowed += f" from {least:.12g}"
    if most < math.inf:
        allowed += f" to {most:.12g}"
    allowed += " or None" * may_be_none + (f" ({meaning})" if meaning else "")
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if not least <= value <= most:  # False for NaN too
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
