"""What the owner of a server and the server process say to each other, over a socket pair.

The pair is also the owner's sign of life: when its end closes, the server stops.
"""

from __future__ import annotations

import msgspec

from palpable._wire.messages import Message
from palpable.servants.settings import ServerSettings


class StartServer(Message, frozen=True, tag="start-server"):
    """Owner: the first and only order besides `StopServer`. Never in argv or the environment: it holds the key."""

    settings: ServerSettings
    owner_pid: int


class StopServer(Message, frozen=True, tag="stop-server"):
    """Owner: end all tasks, then yourself."""


class ServerRecovering(Message, frozen=True, tag="server-recovering"):
    """Server: it reads its store, and goes on; a long queue takes its time."""

    count: int
    """Tasks read so far."""


class ServerStarted(Message, frozen=True, tag="server-started"):
    """Server: clients can connect."""

    address: tuple[str, int] | str
    recovered: dict[str, int] = msgspec.field(default_factory=dict)
    """By what became of them: how many tasks an earlier start on the same store had left."""


class ServerFailed(Message, frozen=True, tag="server-failed"):
    """Server: it could not start, and exits."""

    error: str
    message: str
    error_number: int | None = None
    """The `errno` of an OSError."""


ToServer = StartServer | StopServer
ToOwner = ServerRecovering | ServerStarted | ServerFailed
