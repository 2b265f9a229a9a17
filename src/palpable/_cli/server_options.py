"""The options that say which server a command speaks with, and the connection they lead to."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palpable._cli.ending import NotAsked
from palpable.units.task_exceptions import PalpableError

if TYPE_CHECKING:
    from palpable._connection.address import Address
    from palpable._connection.connection import Connection
    from palpable.units.client import Client

T = TypeVar("T")

OPTIONS = [
    click.option("--socket", metavar="PATH", help="The server's Unix socket."),
    click.option("--host", metavar="HOST", help="The server's host, with --port. [default: 127.0.0.1]"),
    click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="The server's TCP port."),
    click.option("--url", metavar="URL", help="Where it is, as unix:///path, tcp://host:port or tls://host:port."),
    click.option("--authkey-file", metavar="FILE", help="The file with the server's key."),
    click.option("--tls", metavar="FILE", help="TLS: trust the certificates in this file."),
]


@dataclasses.dataclass(frozen=True)
class ServerChoice:
    """Which server the options name. Nothing given: what the environment says, else the user's default server."""

    socket: str | None = None
    host: str | None = None
    port: int | None = None
    url: str | None = None
    authkey_file: str | None = None
    tls: str | None = None

    def __post_init__(self) -> None:
        """Raise click.UsageError if the options contradict each other."""
        is_tcp = self.host is not None or self.port is not None
        if (self.socket is not None) + is_tcp + (self.url is not None) > 1:
            raise click.UsageError("say where the server is in one way: --socket, or --host and --port, or --url")
        if is_tcp and self.port is None:
            raise click.UsageError("--host needs --port")

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Connect, and close at the end.

        Raises:
            click.UsageError: the options make no sense.
            NotAsked, PalpableError: there is no such server, or it refuses us.
        """
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def client(self, *, reconnect_seconds: float | None = None) -> Iterator[Client]:
        """Return a client that is connected, for what takes long: it outlives the restart of a durable server.

        Args:
            reconnect_seconds: how long to try to connect again; None: as `Client` does.

        Raises:
            As `connection`.
        """
        from palpable.units.client import Client

        def connected(where: Address, authkey: bytes, tls: Any) -> Client:
            client = Client(where.url, authkey=authkey, tls=tls, reconnect_seconds=reconnect_seconds)
            client._get_connection()
            return client

        client = self._reached(connected)
        try:
            yield client
        finally:
            client.close()

    def _connect(self) -> Connection:
        from palpable._connection.dialing import dial

        return self._reached(dial)

    def _reached(self, reach: Callable[[Address, bytes, Any], T]) -> T:
        """Return what `reach` makes of address, key and what to trust; say in one line why it can't."""
        # A command that only prints its help needs none of these.
        from palpable._connection.dialing import check_tls

        try:
            where = self.address()
            if where.path and not os.path.exists(where.path):
                raise self._no_server(where.path)
            return reach(where, self.authkey(where), check_tls(where, self.tls))
        except PalpableError:
            raise  # also those that are an OSError
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise NotAsked(f"{what}. Check --authkey-file and --tls.") from None
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def address(self) -> Address:
        """Return where the server is.

        Raises:
            ValueError: what was given is no address.
            AuthenticationFailed: the default server's folder is not this user's own.
        """
        from palpable._connection.address import (
            URL_VARIABLE,
            address_of_environment,
            default_address,
            make_address,
            parse_url,
        )

        if self.url is not None:
            return parse_url(self.url)
        if self.socket is not None:
            return make_address(Path(self.socket))
        if self.port is not None:
            return make_address((self.host or "127.0.0.1", self.port))
        url = os.environ.get(URL_VARIABLE)
        return address_of_environment(url) if url else default_address()

    def authkey(self, where: Address) -> bytes:
        """Return the key for the server at `where`: of the file that is named, else as `Client` finds it.

        For TCP, where `Client` finds none by itself, that of the default server, as `palpable serve` does.

        Raises:
            NotAsked, AuthenticationFailed, OSError: there is none, or others may read it.
        """
        from palpable._connection.address import KEY_FILE_VARIABLE, KEY_VARIABLE, resolve, runtime_folder
        from palpable._connection.authkey import KEY_FILE_NAME, read_authkey_file

        if self.authkey_file is not None:
            return read_authkey_file(self.authkey_file)
        if where.path or os.environ.get(KEY_VARIABLE) or os.environ.get(KEY_FILE_VARIABLE):
            return resolve(where)[1]
        try:
            return read_authkey_file(runtime_folder() / KEY_FILE_NAME)
        except FileNotFoundError:
            raise NotAsked(
                f"there is no key for the server at {where}. Name its file with --authkey-file or {KEY_FILE_VARIABLE}."
            ) from None

    def _no_server(self, path: str) -> NotAsked:
        from palpable._connection.address import URL_VARIABLE

        if self.socket is None and self.url is None and not os.environ.get(URL_VARIABLE):
            advice = "Start one with `palpable serve`, or say where it is: --socket, --host and --port, or --url."
        else:
            advice = f"Start one there with `palpable serve --socket {path}`, or check the path."
        return NotAsked(f"no server is running: there is no socket {path}. {advice}")


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of this module, as one parameter `server`."""

    @functools.wraps(command)
    def with_choice(**kwargs: Any) -> Any:
        names = [field.name for field in dataclasses.fields(ServerChoice)]
        return command(server=ServerChoice(**{name: kwargs.pop(name) for name in names}), **kwargs)

    for option in reversed(OPTIONS):
        with_choice = option(with_choice)
    return with_choice
