"""Numbers and names that users pass, checked at once.

What is of a wrong type must not leave: the server understands nothing more of a connection that says such a thing, and
everybody else who uses it loses what is pending.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from contextlib import suppress
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
) -> Any:
    """Return one number of a call; a whole one as an `int`, which a message takes, whatever it came as (numpy's, say).

    Args:
        name: of the parameter, for the message.
        meaning: said of the allowed range, if the range does not speak for itself.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range, or not a number (NaN).

    Example:
        >>> check_number("priority", 3, least=0, is_whole=True)
        3
        >>> check_number("priority", -1, least=0, is_whole=True)
        Traceback (most recent call last):
        ValueError: priority must be a whole number from 0, not -1
    """
    if value is None and may_be_none:
        return None
    allowed = "a whole number" if is_whole else "a number"
    if least > -math.inf:
        allowed += f" from {least:.12g}"
    if most < math.inf:
        allowed += f" to {most:.12g}"
    allowed += " or None" * may_be_none + (f" ({meaning})" if meaning else "")
    if is_whole and not isinstance(value, bool):
        with suppress(TypeError):
            value = operator.index(value)
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if isinstance(value, int) and value.bit_length() > 63:  # it can't be sent, nor kept in a store
        raise ValueError(f"{name} must be {allowed}, and below 2**63: this one has {value.bit_length()} bits")
    if not least <= value <= most:  # False for NaN too
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return value


def checked_task_id(task_id: Any) -> str:
    """Return `task_id`, which may be of a class derived from `str`, as a string. Raises TypeError: it is none."""
    return _checked_string("task_id", task_id)


def checked_task_ids(task_ids: Any) -> list[str]:
    """Return `task_ids` as a list. Raises TypeError: they are no strings, or one string."""
    if isinstance(task_ids, str):
        raise TypeError(f"task_ids must be a list of strings, not the string {task_ids!r}")
    return [checked_task_id(task_id) for task_id in task_ids]


def checked_names(name: str, names: str | Sequence[str] | None) -> list[str]:
    """Return one string, or several, or none, as a list.

    Args:
        name: of the parameter, for the message.

    Raises:
        TypeError: they are no strings.
    """
    if names is None:
        return []
    if isinstance(names, str):
        return [_checked_string(name, names)]
    try:
        listed = list(names)
    except TypeError:
        raise TypeError(f"{name} must be a string, a list of strings, or None, not {names!r}") from None
    return [_checked_string(f"each of {name}", one) for one in listed]


def _checked_string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return str.__str__(value)  # a plain one: no message takes a string of numpy, say
