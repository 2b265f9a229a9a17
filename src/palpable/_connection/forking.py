"""What a fork does to connections: the child must not touch the parent's sockets, locks and waiting threads.

The child gives its copies of the sockets back, so that the server sees when the parent is gone, and whoever holds a
connection in the child finds it broken and opens one of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from palpable._connection.connection import Connection

_open: WeakSet[Connection] = WeakSet()


def register(connection: Connection) -> None:
    """Give `connection` up in every child that this process forks from now on."""
    _open.add(connection)


def open_connections() -> list[Connection]:
    """Return the connections of this process."""
    return list(_open)


def _give_up_in_child() -> None:
    global _open
    # A fork in the middle of another thread's `add` may have left this set locked for iteration: take what is there.
    inherited, _open = _open, WeakSet()
    for reference in list(inherited.data):
        connection = reference()
        if connection is not None:
            connection.abandon()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_give_up_in_child)
