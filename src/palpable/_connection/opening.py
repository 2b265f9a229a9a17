"""From an address to a connected socket, and what to say when there is none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time

from palpable._connection.address import Address, default_address
from palpable.units.task_exceptions import PalpableError, ServerUnreachable

CONNECT_SECONDS = 10.0
"""How long a connection, TLS, and the handshake may take, each."""


def open_socket(address: Address) -> socket.socket:
    """Return a socket that is connected, with a timeout.

    Raises:
        ServerUnreachable: nobody listens there.
    """
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


def unreachable(address: Address, error: OSError) -> ServerUnreachable:
    """Return what to raise when nobody answers, with what to do about it."""
    if isinstance(error, FileNotFoundError):
        why = f"there is no socket file {address.path}. {_how_to_start(address)}, or check the path."
    elif isinstance(error, ConnectionRefusedError):
        why = f"nobody listens there. {_how_to_start(address)}, or check the address."
    elif isinstance(error, TimeoutError | BlockingIOError):  # the latter: no room in the queue of a Unix socket
        why = f"no answer within {CONNECT_SECONDS:g} s. Is the server stopped, or too busy"
        why += "?" if address.path else ", or the machine off, or its port closed by a firewall?"
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
