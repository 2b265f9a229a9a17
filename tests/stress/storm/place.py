"""Where the server of a storm listens, and how clients connect to it: over a Unix socket, TCP, or TLS.

Runs in: the storm, and clients, which get places as words on their command line.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NamedTuple

from palpable import AsyncClient, Client

KINDS = ("unix", "tcp", "tls")
_FOLDER = Path(__file__).resolve().parents[2] / "support" / "tls"
CERTIFICATE, KEY = _FOLDER / "server.crt", _FOLDER / "server.key"


class Place(NamedTuple):
    """An address, and what is spoken there.

    Attributes:
        address: a path, or host and port.
    """

    kind: str
    address: str | tuple[str, int]

    @property
    def family(self) -> str:
        return "AF_UNIX" if self.kind == "unix" else "AF_INET"

    @property
    def server_options(self) -> dict[str, Any]:
        """What the server must be told besides the address."""
        return {"family": self.family, "tls": (CERTIFICATE, KEY) if self.kind == "tls" else None}

    def client(self, authkey: bytes, **options: Any) -> Client:
        """Return a client of the server that listens here."""
        return Client(self.address, self.family, authkey, **self._client_options, **options)

    def async_client(self, authkey: bytes, **options: Any) -> AsyncClient:
        """Return the same for asyncio."""
        return AsyncClient(self.address, self.family, authkey, **self._client_options, **options)

    @property
    def _client_options(self) -> dict[str, Any]:
        return {"tls": CERTIFICATE} if self.kind == "tls" else {}

    def word(self) -> str:
        """Return it as a word, from which `place_of` makes it again."""
        where = self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"
        return f"{self.kind}:{where}"


def place_of(word: str) -> Place:
    """Return the place that a word names."""
    kind, _, where = word.partition(":")
    if kind == "unix":
        return Place(kind, where)
    host, _, port = where.rpartition(":")
    return Place(kind, (host, int(port)))


def new_place(kind: str, folder: Path) -> Place:
    """Return a place where nobody listens. Its port, if it has one, stays the same over all starts of the server."""
    if kind == "unix":
        return Place(kind, str(folder / "server.sock"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Place(kind, ("127.0.0.1", probe.getsockname()[1]))
