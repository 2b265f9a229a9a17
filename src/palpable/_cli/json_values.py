"""Values that come from and go to JSON: arguments, and what tasks return."""

from __future__ import annotations

from typing import Any

import msgspec


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

    Numbers, strings, lists, dicts, dates, sets, dataclasses and the like; arrays as lists; NaN and infinity as null.
    Bytes by themselves can't; inside of others they are base64.

    Raises:
        TypeError, ValueError: it can't be JSON.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes are no JSON")  # base64, as msgspec writes them, is not what somebody expects to read
    try:
        return msgspec.Raw(msgspec.json.encode(value, enc_hook=_as_list))
    except RecursionError:
        raise ValueError("it holds itself, or is too deep for JSON") from None
    except (TypeError, ValueError):
        raise
    except Exception as error:  # its class is the user's, and may raise anything
        raise ValueError(str(error)) from None


def _as_list(value: Any) -> Any:
    """Return arrays and numbers of numpy and its like as Python's own."""
    if not isinstance(value, type) and callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"a {type(value).__qualname__} can't be JSON")
