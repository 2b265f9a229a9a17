"""What a fork does to connections: the child must not touch the parent's sockets, locks and waiting threads.

The child gives its copies of the sockets back, so that the server sees when the parent is gone, and whoever holds a
connection in the child finds it broken and opens one of its own.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palpable._connection.connection import Connection

# A plain dict, each change a single step: another thread may be in the middle of anything when this one forks.
_open: dict[int, weakref.ref[Connection]] = {}


def register(connection: Connection) -> None:
    """Give `connection` up in every child that this process forks from now on."""
    key = id(connection)
    # All in C: a Ctrl-C in a callback written in Python would be swallowed there.
    _open[key] = weakref.ref(connection, functools.partial(_open.pop, key))


def open_connections() -> list[Connection]:
    """Return the connections of this process."""
    connections = [reference() for reference in list(_open.values())]
    return [connection for connection in connections if connection is not None]


def _give_up_in_child() -> None:
    inherited = open_connections()
    _open.clear()
    for connection in inherited:
        connection.abandon("it belongs to the process that forked this one")


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_give_up_in_child)
