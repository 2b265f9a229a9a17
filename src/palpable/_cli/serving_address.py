"""Where a server that is started from the command line listens, with which key, and what is said about that."""

from __future__ import annotations

import dataclasses
import errno
import os
import shlex
import socket as sockets
from pathlib import Path
from typing import Self

import click

from palpable._cli.ending import Failure, NotAsked
from palpable._cli.key_file import KeyFile
from palpable._connection.address import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    URL_VARIABLE,
    Address,
    default_address,
    make_address,
    runtime_folder,
)
from palpable._connection.authkey import KEY_FILE_NAME
from palpable.units.task_exceptions import PalpableError


@dataclasses.dataclass(frozen=True)
class ServingAddress:
    """An address to listen on, and the key, whose file is in use until `close` or `withdraw`.

    Attributes:
        path, host, port: the Unix socket; or the TCP address, port 0 for a free one.
        certificate: clients must use TLS, and will be shown the certificate in this file; None: no TLS.
        is_default: it is the user's default server.
        key_path: the file the key is in; None: it is in the environment.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    certificate: str | None = None
    is_default: bool = False
    authkey: bytes = dataclasses.field(default=b"", repr=False)
    key_path: Path | None = None
    _key_file: KeyFile | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def choose(
        cls, socket: str | None, host: str | None, port: int | None, certificate: str | None, authkey_file: str | None
    ) -> Self:
        """Return what the options say.

        The key: from the file that is named, else from PALPABLE_AUTHKEY, else the file PALPABLE_AUTHKEY_FILE, in the
        order of clients; else from the file beside the socket, or for TCP beside the one of the default server. A file
        that is not there is made.

        Raises:
            click.UsageError: the options contradict each other.
            NotAsked, AuthenticationFailed: the key can't be read or made, or others may read it.
        """
        is_tcp = host is not None or port is not None
        if is_tcp and socket is not None:
            raise click.UsageError("listen on a --socket, or on --host and --port, not on both")
        if is_tcp and port is None:
            raise click.UsageError("--host needs --port (0: a free one)")
        if certificate is not None and not is_tcp:
            raise click.UsageError("TLS is for TCP: add --host and --port")
        try:
            if is_tcp:
                where = cls(host=host or "127.0.0.1", port=port or 0, certificate=certificate)
            else:
                where = cls._unix(socket)
            return where._with_key(authkey_file)
        except PalpableError:
            raise
        except OSError as error:
            raise NotAsked(
                f"{error.filename}: {error.strerror}. Check the permissions, or name another place."
            ) from None

    @classmethod
    def _unix(cls, socket: str | None) -> Self:
        try:
            path = default_address().path if socket is None else make_address(Path(socket)).path
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if socket is None:
            runtime_folder(create=True)
        return cls(path=path, is_default=socket is None)

    def _with_key(self, authkey_file: str | None) -> Self:
        if authkey_file is None and os.environ.get(KEY_VARIABLE):
            return dataclasses.replace(self, authkey=os.fsencode(os.environ[KEY_VARIABLE]))
        named = authkey_file or os.environ.get(KEY_FILE_VARIABLE)
        if named:
            path = Path(named).absolute()
        else:
            folder = Path(self.path).parent if self.path else runtime_folder(create=True)
            path = folder / KEY_FILE_NAME
        if not path.parent.is_dir():
            raise NotAsked(f"there is no folder {path.parent}. Make it, or name another.")
        key_file = KeyFile(path)
        return dataclasses.replace(self, authkey=key_file.key, key_path=path, _key_file=key_file)

    def close(self) -> None:
        """Let go of the key file, which stays for the next server. Safe to call twice."""
        if self._key_file is not None:
            self._key_file.close()

    def withdraw(self) -> None:
        """Nobody listened: let go of the key file, and remove it if it was made for this and nobody else uses it."""
        if self._key_file is not None:
            self._key_file.withdraw()

    # --- what the server and its clients are told ---

    @property
    def family(self) -> str:
        """As `Server` takes it."""
        return "AF_UNIX" if self.path else "AF_INET"

    @property
    def address(self) -> str | tuple[str, int]:
        """As `Server` takes it."""
        return self.path or (self.host, self.port)

    def listening(self, address: str | tuple[str, int]) -> Self:
        """Return this with the port that was chosen."""
        return self if self.path else dataclasses.replace(self, port=int(address[1]))

    @property
    def url(self) -> str:
        """Where clients connect."""
        if self.path:
            return Address(path=self.path).url
        host = sockets.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host
        return Address(host=host, port=self.port, is_tls=self.certificate is not None).url

    @property
    def how_to_reach(self) -> str:
        """What makes `Client()` and the other commands find the server."""
        settings = {} if self.is_default else {URL_VARIABLE: self.url}
        is_beside = bool(self.path) and self.key_path == Path(self.path).with_name(KEY_FILE_NAME)
        if self.key_path is not None and not is_beside:
            settings[KEY_FILE_VARIABLE] = str(self.key_path)
        if settings:
            words = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
            trust = f"; a self-signed certificate needs --tls {self.certificate} too" if self.certificate else ""
            return f"Client() and the other commands find it with {words}{trust}"
        if os.environ.get(URL_VARIABLE, self.url) != self.url:
            return f"Client() and the other commands find it, except here: {URL_VARIABLE} names another server."
        return "Client() and the other commands find it."

    def is_taken(self) -> bool:
        """Whether somebody listens there now."""
        family = sockets.AF_UNIX if self.path else sockets.AF_INET6 if ":" in self.host else sockets.AF_INET
        with sockets.socket(family) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(self.address)
            except OSError:
                return False
            return True

    def refused(self, error: OSError) -> Failure:
        """Return what to say when the server can't listen there, or can't start for another reason."""
        from palpable.servants.listener import CannotListen

        place = self.path or f"{self.host}:{self.port}"
        if error.errno == errno.EADDRINUSE and self.path:
            option = "" if self.is_default else f" --socket {shlex.quote(self.path)}"
            return Failure(
                f"another server listens on {place} already. Use that one, end it with `palpable stop{option}`, or "
                f"choose another --socket."
            )
        if error.errno == errno.EADDRINUSE:
            return Failure(f"another program listens on {place} already. Choose another --port; 0 takes a free one.")
        if error.errno == errno.EEXIST:
            return Failure(f"{place} is a file and no socket. Remove it, or choose another --socket.")
        if error.filename and error.filename != self.path:
            return Failure(f"can't use {error.filename}: {error.strerror}.")
        if not isinstance(error, CannotListen):
            return Failure(f"the server could not start: {error}.")
        return Failure(f"can't listen on {place}: {error.strerror or error}. Choose another address.")
