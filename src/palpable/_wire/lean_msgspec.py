"""Imports msgspec without what it does not need.

Runs in: the server process, zygotes, and the command line, before anything else there needs it. Not in programs of
users: what others import there is not ours to hide.
"""

from __future__ import annotations

import sys


def import_msgspec() -> None:
    """Import msgspec.

    From typing_extensions, where that is installed, it takes what `typing` has too since Python 3.11; and that is a
    large module: 5 ms of a start, and every fork would copy its part. Whoever wants it can import it later.
    """
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        import msgspec

        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
