"""A proxy between a client and a server that cuts connections, anywhere, also in the middle of a frame."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

Decide = Callable[[bytes], int | None]
"""Given what is about to be passed on: how many bytes of it to let through before the cut; None: do not cut."""


class CuttingProxy:
    """Listens at a socket of its own, and passes everything on to the server's, until told to cut.

    Args:
        server_address: a path, or host and port; the proxy's is of the same kind.

    Attributes:
        address: where clients find it.
        cuts: how many connections were cut.
        to_server, to_client: decide, for each piece that travels that way, whether to cut in it.
    """

    def __init__(self, folder: Path, server_address: str | tuple[str, int]) -> None:
        self.address: str | tuple[str, int] = str(folder / "proxy.sock")
        self._family = socket.AF_UNIX if isinstance(server_address, str) else socket.AF_INET
        self.cuts = 0
        self.to_server: Decide = lambda data: None
        self.to_client: Decide = lambda data: None
        self._server_address = server_address
        self._lock = threading.Lock()
        self._pairs: dict[tuple[socket.socket, socket.socket], int] = {}
        """Each with the number of its threads."""
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(self._family, socket.SOCK_STREAM)

    def __enter__(self) -> CuttingProxy:
        if self._family == socket.AF_UNIX:
            self._listener.bind(self.address)
        else:
            self._listener.bind(("127.0.0.1", 0))
            self.address = self._listener.getsockname()
        self._listener.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self.cut_all()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()
        if isinstance(self.address, str):
            Path(self.address).unlink()

    def cut_all(self) -> None:
        """Cut every connection, wherever it is."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._cut(pair)

    def cut_at_random(self, seed: int, one_in: int) -> None:
        """From now on cut in one of so many pieces, in each direction."""
        rng = random.Random(seed)

        def decide(data: bytes) -> int | None:
            return rng.randrange(len(data) + 1) if rng.randrange(one_in) == 0 else None

        self.to_server = self.to_client = decide

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(self._family, socket.SOCK_STREAM)
            try:
                far.connect(self._server_address)
            except OSError:  # the server is not there
                near.close()
                far.close()
                continue
            pair = (near, far)
            with self._lock:
                self._pairs[pair] = 2
            self._start(self._pass_on, pair, near, far, lambda data: self.to_server(data))
            self._start(self._pass_on, pair, far, near, lambda data: self.to_client(data))

    def _pass_on(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, target: socket.socket, decide: Decide
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                let_through = decide(data)
                if let_through is not None:
                    target.sendall(data[:let_through])
                    with self._lock:
                        self.cuts += 1
                    break
                target.sendall(data)
        self._cut(pair)
        with self._lock:
            self._pairs[pair] -= 1
            if not self._pairs[pair]:
                del self._pairs[pair]
                for sock in pair:
                    sock.close()

    def _cut(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for sock in pair:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
