"""From an address to a proven connection: socket, TLS, handshake."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from palpable._connection.address import Address, resolve
from palpable._connection.connection import Connection
from palpable._connection.inside import identity
from palpable._connection.opening import CONNECT_SECONDS, open_socket, unreachable
from palpable._connection.reconnecting import Again, Proven
from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.handshake import HANDSHAKE_LIMIT_BYTES, ClientHandshake, HandshakeToClient
from palpable.units.task_exceptions import PalpableError, ServerError, ServerUnreachable

if TYPE_CHECKING:
    import ssl

    from palpable._connection.tls_stream import TlsStream

    Tls = bool | str | os.PathLike[str] | ssl.SSLContext | None


def check_tls(address: Address, tls: Tls) -> Tls:
    """Return what to trust for this address; None: no TLS.

    Raises:
        TypeError, ValueError: `tls` is none of what it can be, or is not for Unix sockets.
        OSError: the certificate file can't be read.
    """
    if tls is None or tls is False:
        return True if address.is_tls else None
    if not isinstance(tls, bool | str | os.PathLike) and not _is_context(tls):
        raise TypeError(f"tls must be True, the path of a certificate file, or an ssl.SSLContext, not {tls!r}")
    if address.path:
        raise ValueError(f"tls is for TCP; {address.url} is a Unix socket, which never leaves this machine")
    if isinstance(tls, str | os.PathLike):
        with open(tls, "rb"):
            pass
    return tls


def _is_context(tls: object) -> bool:
    import ssl  # who has a context has imported it

    return isinstance(tls, ssl.SSLContext)


def dial(address: Address, authkey: bytes, tls: Tls = None, again: Again | None = None) -> Connection:
    """Return a connection to the server at `address`. As `prove`.

    Args:
        again: how to connect again when it breaks; None: never.
    """
    return connection_over(prove(address, authkey, tls), address, again)


def connection_over(proven: Proven, address: Address, again: Again | None = None) -> Connection:
    """Return a connection over a socket that `prove` made."""
    return Connection(
        proven.stream,
        reader=proven.reader,
        inside_task=bool(proven.inside_task),
        task_id=proven.inside_task,
        info=proven.info,
        address=address.url,
        read_by_callers=isinstance(proven.stream, socket.socket),
        again=again,
    )


def resolve_again(
    address: Address | None, family: str | None, authkey: bytes | None, tls: Tls
) -> tuple[Address, bytes, Tls]:
    """Return what to connect to, from what a user has passed to a client, for a server that was there before.

    Raises:
        ServerUnreachable: also when its key is not to be found; it may be about to write one.
    """
    try:
        where, key = resolve(address, family, authkey)
        return where, key, check_tls(where, tls)
    except (PalpableError, OSError, ValueError) as error:
        raise ServerUnreachable(str(error)) from error


def prove(address: Address, authkey: bytes, tls: Tls = None) -> Proven:
    """Return a connected socket, after both sides have proven that they hold the key.

    With `tls` the path of a file, that file says which servers to trust. Either it holds the server's very
    certificate (as a self-signed one must be passed): then nothing else is asked, whatever name it shows, since only
    that server has its key. Or it holds the certificate of an authority: then the server's must be signed by it, and
    show the host's name. With True the same is asked of the authorities that this machine trusts.

    Raises:
        ServerUnreachable: nobody listens there, or the connection broke.
        AuthenticationFailed, VersionMismatch, ServerError: somebody listens, and it is not our server, or refuses us.
    """
    if not tls:
        return _prove(open_socket(address), address, authkey)
    from palpable._connection.tls_opening import open_trusted

    return _prove(open_trusted(address, tls), address, authkey)


def _prove(stream: socket.socket | TlsStream, address: Address, authkey: bytes) -> Proven:
    """Do the handshake. Closes the stream if it fails."""
    handshake = ClientHandshake(authkey, *identity())
    reader: FrameReader[Any] = FrameReader(HandshakeToClient, limit_bytes=HANDSHAKE_LIMIT_BYTES)
    deadline = time.monotonic() + CONNECT_SECONDS
    try:
        _send_all(stream, encode_frame(handshake.hello()))
        while handshake.welcome is None:
            for message in reader.feed(_recv(stream, deadline)):
                answer = handshake.answer(message)
                if answer is not None:
                    _send_all(stream, encode_frame(answer))
        if isinstance(stream, socket.socket):
            stream.settimeout(None)
        return Proven(stream, reader, handshake.welcome.server, handshake.inside_task)
    except BaseException as error:
        stream.close()
        if isinstance(error, FrameError):
            raise ServerError(
                f"what listens at {address} is no Palpable server, or one that wants TLS: {error}"
            ) from None
        if isinstance(error, OSError) and not isinstance(error, ServerUnreachable):
            raise unreachable(address, error) from None
        raise


def _recv(stream: socket.socket | TlsStream, deadline: float) -> bytes:
    from palpable._connection.readiness import wait_until_ready

    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it did not answer the handshake")
        has_more = not isinstance(stream, socket.socket) and stream.has_more
        if not has_more and not wait_until_ready((stream,), (), left):
            continue
        try:
            data = stream.recv(HANDSHAKE_LIMIT_BYTES)
        except BlockingIOError:
            continue
        if not data:
            raise ConnectionResetError("it ended the connection during the handshake")
        return data


def _send_all(stream: socket.socket | TlsStream, data: bytearray) -> None:
    # A few hundred bytes into an empty socket: it takes them at once.
    sent = 0
    while sent < len(data):
        sent += stream.send(data[sent:])
