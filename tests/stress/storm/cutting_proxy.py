"""A proxy between clients and the server that cuts connections in the middle of a frame.

Runs in: the storm, a thread for each direction of each connection.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from pathlib import Path
from typing import Self


class CuttingProxy:
    """Listens on a Unix socket and passes everything on to another, until told to cut.

    Args:
        path: where it listens.
        target: where it connects to, anew for each connection.
    """

    def __init__(self, path: Path, target: str) -> None:
        self.path = str(path)
        self._target = target
        self._lines: set[_Line] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for line in self._all():
            line.close()
        for line in self._all():
            line.join()
        Path(self.path).unlink()

    def cut(self, rng: random.Random, passing_bytes_most: int = 200) -> int:
        """Cut every connection after a few more bytes in one of its directions; return how many there are."""
        lines = self._all()
        for line in lines:
            line.cut_after(rng.randint(0, passing_bytes_most), to_server=rng.random() < 0.5)
        return len(lines)

    def _all(self) -> list[_Line]:
        with self._lock:
            return list(self._lines)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self._target)
            except OSError:  # there is no server at the moment
                client.close()
                server.close()
                continue
            line = _Line(client, server, self._forget)
            with self._lock:
                self._lines.add(line)
            line.start()

    def _forget(self, line: _Line) -> None:
        with self._lock:
            self._lines.discard(line)


class _Line:
    """One connection: two sockets, and a thread for each direction."""

    def __init__(self, client: socket.socket, server: socket.socket, on_end: object) -> None:
        self._sockets = (client, server)
        self._on_end = on_end
        self._left: dict[bool, int | None] = {True: None, False: None}
        """By direction (to the server): how many bytes may still pass."""
        self._lock = threading.Lock()
        self._running = 2
        self._threads = [
            threading.Thread(target=self._pass_on, args=(client, server, True)),
            threading.Thread(target=self._pass_on, args=(server, client, False)),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int, *, to_server: bool) -> None:
        self._left[to_server] = count

    def _pass_on(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                left = self._left[to_server]
                if left is not None and len(data) > left:
                    sink.sendall(data[:left])
                    break
                sink.sendall(data)
                if left is not None:
                    self._left[to_server] = left - len(data)
        except OSError:
            pass
        self.close()
        with self._lock:
            self._running -= 1
            is_last = not self._running
        if is_last:
            for one in self._sockets:
                one.close()
            self._on_end(self)  # type: ignore[operator]
