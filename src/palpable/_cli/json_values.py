"""Values that come from and go to JSON: arguments, and what tasks return."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

_BYTES = (bytes, bytearray, memoryview)


def parse_json(text: str | bytes, what: str) -> Any:
    """Return the value in `text`.

    Args:
        what: is said to be no JSON, in the error.

    Raises:
        ValueError: it is no JSON; the message says where it stops being so.

    Example:
        >>> parse_json('[1, 2]', "--args")
        [1, 2]
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = text if isinstance(text, str) else text.decode(errors="replace")
        shown = shown if len(shown) <= 40 else shown[:39] + "…"
        raise ValueError(f"{what} is not JSON ({error}): {shown}") from None


def encode_json(value: Any) -> msgspec.Raw:
    """Return a value as JSON, to be put into a larger one or printed.

    Numbers, strings, lists, tuples, sets and dicts, dates, dataclasses and the like; arrays as lists. Keys that are no
    strings become such. Not where somebody would read another value than there is: no NaN or infinity and no bytes,
    also inside of others, and no dict of which two keys become the same.

    Raises:
        TypeError, ValueError: it can't be JSON.
    """
    try:
        encoded = msgspec.json.encode(value, enc_hook=_as_list)
        _check_scalars(msgspec.to_builtins(value, builtin_types=_BYTES, enc_hook=_as_list))
        if b"{" in encoded:
            json.loads(encoded, object_pairs_hook=_check_keys, parse_int=len, parse_float=len)
        return msgspec.Raw(encoded)
    except RecursionError:
        raise ValueError("it holds itself, or is too deep for JSON") from None
    except (TypeError, ValueError):
        raise
    except Exception as error:  # its class is the user's, and may raise anything
        raise ValueError(str(error)) from None


def _check_scalars(value: Any) -> None:
    """Raise ValueError if there is something in a value that msgspec writes as something else.

    Args:
        value: of Python's own types.
    """
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left += item.keys()
            left += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            left += item
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{item} can't be JSON")  # null, to msgspec
        elif isinstance(item, _BYTES):
            raise ValueError("bytes can't be JSON")  # base64, to msgspec


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("two keys of a dict are the same one in JSON")


def _as_list(value: Any) -> Any:
    """Return arrays and numbers of numpy and its like as Python's own."""
    if not isinstance(value, type) and callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"a {type(value).__qualname__} can't be JSON")
