"""From an address to a proven connection: socket, TLS, handshake."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import struct
import time
from typing import Any

from palpable._connection.address import Address, default_address, resolve
from palpable._connection.connection import Connection
from palpable._connection.inside import identity
from palpable._connection.reconnecting import Again, Proven
from palpable._connection.tls_stream import TlsStream
from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.handshake import HANDSHAKE_LIMIT_BYTES, ClientHandshake, HandshakeToClient
from palpable.units.task_exceptions import PalpableError, ServerError, ServerUnreachable

CONNECT_SECONDS = 10.0
"""How long a connection, TLS, and the handshake may take, each."""

Tls = bool | str | os.PathLike[str] | ssl.SSLContext | None


def check_tls(address: Address, tls: Tls) -> Tls:
    """Return what to trust for this address; None: no TLS.

    Raises:
        TypeError, ValueError: `tls` is none of what it can be, or is not for Unix sockets.
        OSError: the certificate file can't be read.
    """
    if tls is None or tls is False:
        return True if address.is_tls else None
    if not isinstance(tls, bool | str | os.PathLike | ssl.SSLContext):
        raise TypeError(f"tls must be True, the path of a certificate file, or an ssl.SSLContext, not {tls!r}")
    if address.path:
        raise ValueError(f"tls is for TCP; {address.url} is a Unix socket, which never leaves this machine")
    if isinstance(tls, str | os.PathLike):
        with open(tls, "rb"):
            pass
    return tls


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
    if isinstance(tls, str | os.PathLike):
        pinned = certificates_in(tls)
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        stream = _open_tls(address, anyone)
        if stream.certificate() not in pinned:
            # Nothing was said to it yet. Ask anew, in full.
            stream.close()
            stream = _open_tls(address, ssl.create_default_context(cafile=os.fspath(tls)))
    elif tls:
        stream = _open_tls(address, ssl.create_default_context() if tls is True else tls)
    else:
        return _prove(_open(address), address, authkey)
    return _prove(stream, address, authkey)


def _open(address: Address) -> socket.socket:
    sock: socket.socket | None = None
    try:
        if address.path:
            sock = _OwnSocket(socket.AF_UNIX, socket.SOCK_STREAM)
            _connect_unix(sock, address.path)
        else:
            sock = _connected_tcp(address.host, address.port)
            # Frames are whole and sent at once; to hold one back for the next would only delay it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A server machine that is gone says nothing; the kernel asks after it and breaks the connection.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise unreachable(address, error) from None
        raise


class _OwnSocket(socket.socket):
    """A socket that is closed when it is dropped.

    A Ctrl-C may come between any two steps from here to where a client keeps its connection, and drop what was made
    until then; no `except` is around all of them.
    """

    __slots__ = ()
    __del__ = socket.SocketType.close
    """That of C: it needs nothing that `__init__` sets, and no Ctrl-C comes in between."""


def _connected_tcp(host: str, port: int) -> socket.socket:
    """Connect to the first address of that name where somebody listens."""
    failure = OSError(f"the name {host!r} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = _OwnSocket(family, kind, protocol)
        try:
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(where)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _connect_unix(sock: socket.socket, path: str) -> None:
    """Connect, and wait for our turn while more wait to be accepted than the server's queue holds."""
    # With a timeout of Python's, `connect` would not wait but fail at once (EAGAIN): the kernel waits for room in the
    # queue of a Unix socket only while it blocks, and this is the timeout that it knows.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(CONNECT_SECONDS), 0))
    try:
        sock.connect(path)
    except ConnectionRefusedError:
        _wait_while_it_is_made(path)
        sock.connect(path)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
    sock.settimeout(CONNECT_SECONDS)


def _wait_while_it_is_made(path: str) -> None:
    """Return when no server is between making the socket's file there and listening on it.

    Whoever waits for the file to appear connects in between. A server holds the folder meanwhile (`listener.py`).
    """
    try:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # we may not read it; then there is nothing to wait for
    try:
        deadline = time.monotonic() + CONNECT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
            time.sleep(0.001)
    finally:
        os.close(folder)


def _open_tls(address: Address, context: ssl.SSLContext) -> TlsStream:
    sock = _open(address)
    try:
        stream = TlsStream(sock, context, address.host)
        stream.shake_hands(CONNECT_SECONDS)
        return stream
    except BaseException as error:
        sock.close()
        if isinstance(error, ssl.SSLError):
            raise tls_unreachable(address, error) from None
        if isinstance(error, OSError):
            raise unreachable(address, error) from None
        raise


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
        has_more = isinstance(stream, TlsStream) and stream.has_more
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


def certificates_in(path: str | os.PathLike[str]) -> set[bytes]:
    """Return the certificates (DER) in a PEM file."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    found: set[bytes] = set()
    for part in text.split(begin)[1:]:
        body, separator, _ = part.partition(end)
        if separator:
            found.add(ssl.PEM_cert_to_DER_cert(f"{begin}{body}{end}"))
    return found


def tls_unreachable(address: Address, error: ssl.SSLError) -> ServerUnreachable:
    """Return what to raise when there is no TLS with a server that we may trust."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = (
            f"its certificate is not trusted: {error.verify_message}. For a self-signed one pass its file, "
            f"tls='server.crt' or --tls server.crt; for one of your own authority, that one's."
        )
    else:
        why = f"no TLS with it: {error.reason or error}. Does it listen without TLS?"
    return ServerUnreachable(f"no server at {address}: {why}", address=address.url)


def unreachable(address: Address, error: OSError) -> ServerUnreachable:
    """Return what to raise when nobody answers, with what to do about it."""
    if isinstance(error, FileNotFoundError):
        why = f"there is no socket file {address.path}. {_how_to_start(address)}, or check the path."
    elif isinstance(error, ConnectionRefusedError):
        why = f"nobody listens there. {_how_to_start(address)}, or check the address."
    elif isinstance(error, TimeoutError):
        why = f"no answer ({error}). Is the machine on, and the port open in its firewall?"
    elif isinstance(error, PermissionError):
        why = "this user may not open the socket. The server must run as the same user, or listen on TCP."
    elif isinstance(error, socket.gaierror):
        why = f"the name {address.host!r} is not known."
    else:
        why = f"{error.strerror or error}. Is a server running there?"
        if isinstance(error, ConnectionResetError) and address.host and not address.is_tls:
            why += f" One that wants TLS is at tls://{address.host}:{address.port}."
    return ServerUnreachable(f"no server at {address}: {why}", address=address.url)


def _how_to_start(address: Address) -> str:
    with contextlib.suppress(PalpableError, OSError, ValueError):  # there can be no default server in such a folder
        if address == default_address():
            return "Start the server with `palpable serve`"
    return "Start the server"
