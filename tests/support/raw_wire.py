"""Speaking with a server, or as one, in bare bytes: what no well-behaved peer would ever send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from palpable import Server
from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.handshake import ClientHandshake, HandshakeToClient
from palpable._wire.messages import ResultsPushed, ServerAnswer, TasksAccepted


@contextmanager
def raw_connection(server: Server, timeout_seconds: float = 20.0) -> Iterator[socket.socket]:
    """A connected socket that has said nothing yet."""
    family = socket.AF_UNIX if server.family == "AF_UNIX" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_seconds)
        sock.connect(server.address)
        yield sock


@contextmanager
def greeted_connection(server: Server) -> Iterator[socket.socket]:
    """A connected socket with the handshake done."""
    with raw_connection(server) as sock:
        handshake = ClientHandshake(server.authkey)
        reader: FrameReader[Any] = FrameReader(HandshakeToClient)
        message: Any = handshake.hello()
        while message is not None:
            sock.sendall(encode_frame(message))
            message = handshake.answer(receive(sock, reader))
        yield sock


def receive(sock: socket.socket, reader: FrameReader[Any]) -> Any:
    """The next message. Raises ConnectionError when the peer closes first."""
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed by the peer")
        messages = reader.feed(data)
        if messages:
            assert len(messages) == 1
            return messages[0]


def apart(messages: list[Any]) -> list[Any]:
    """The same, with the acceptances that came along with results as messages before these."""
    found: list[Any] = []
    for message in messages:
        if isinstance(message, ResultsPushed) and message.accepted:
            found += [TasksAccepted(request_id=request_id) for request_id in message.accepted]
            message = replace(message, accepted=[])
        found.append(message)
    return found


def ask(sock: socket.socket, request: Any) -> Any:
    """Send a request, return the answer."""
    sock.sendall(encode_frame(request))
    return receive(sock, FrameReader(ServerAnswer))


def read_to_end(sock: socket.socket) -> bytes:
    """All that still comes until the peer closes; a reset counts as closing."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


@contextmanager
def impostor(folder: Path, behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listen like a server at the Unix socket whose path is given, and treat each connection with `behave`."""
    path = str(folder / "impostor.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    try:
                        if connection.recv(1, socket.MSG_PEEK) == b"!":
                            return
                        behave(connection)
                    except OSError:
                        pass  # the client has had enough, as it should

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield path
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(path)
                last.sendall(b"!")
                server.join()
            Path(path).unlink()
