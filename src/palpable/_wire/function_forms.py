"""What can be told of a function's bytes without loading it.

Runs in: the server, which unpickles nothing.
"""

from __future__ import annotations

NAMED_MARK = b"\1"
"""The first byte of the form of `named_function`. A pickle begins with 0x80, the form of `plain_function` with 0."""


def module_of(data: bytes) -> str | None:
    """Return the module that a function in its named form is imported from; None for all other forms."""
    if data[:1] != NAMED_MARK:
        return None
    try:
        return data[1:].partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        return None
