"""A socket with TLS, that one thread may read while another writes.

`ssl.SSLSocket` does not allow that: both directions change one state in OpenSSL. Here the state is touched under a
lock only, in memory; the socket itself is read and written outside of it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

from palpable._connection.readiness import wait_until_ready

READ_BYTES = 1 << 16
WRITE_BYTES = 1 << 14
"""The largest TLS record."""


class TlsStream:
    """What a `Connection` uses of a socket, encrypted. The socket is non-blocking.

    For one reading and one writing thread; neither may be interrupted by signals, so not the main thread.

    Args:
        sock: connected; owned by the stream from now on.
        context: what to trust.
        server_hostname: the name the certificate must show, if the context checks it.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._lock = threading.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.has_more = False
        """Whether `recv` may return something without reading the socket."""
        self._unsent = b""
        self._unsent_count = 0
        """How much plain text `_unsent` is."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    def shake_hands(self, timeout_seconds: float) -> None:
        """Do the TLS handshake.

        Raises:
            ssl.SSLError: the certificate is not trusted, or the other end speaks no TLS.
            OSError, TimeoutError: the connection broke, or took too long.
        """
        while True:
            try:
                self._tls.do_handshake()
                self._send_all(self._outgoing.read(), timeout_seconds)
                self.has_more = True  # perhaps: what came behind the handshake is in the buffer
                return
            except ssl.SSLWantReadError:
                self._send_all(self._outgoing.read(), timeout_seconds)
                if not wait_until_ready((self._socket,), (), timeout_seconds):
                    raise TimeoutError("the TLS handshake took too long") from None
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server ended the connection during the TLS handshake") from None
                self._incoming.write(data)

    def certificate(self) -> bytes | None:
        """Return the server's certificate (DER)."""
        return self._tls.getpeercert(binary_form=True)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return decrypted bytes; b"" at the end. Raises BlockingIOError when there are none now."""
        if not self.has_more:
            data = self._socket.recv(READ_BYTES)
            with self._lock:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
        with self._lock:
            try:
                plaintext = self._tls.read(size)
                # One record at a time; several may have come at once. `SSLObject.pending` knows only of the one begun.
                self.has_more = True
                return plaintext
            except ssl.SSLWantReadError:
                self.has_more = False
                raise BlockingIOError from None
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""

    def send(self, data: Any, flags: int = 0) -> int:
        """Encrypt and send some of `data`; return how much.

        Raises:
            BlockingIOError: the socket does not take all of it now. Call again with the same data.
        """
        if not self._unsent_count:
            with self._lock:
                self._unsent_count = self._tls.write(memoryview(data)[:WRITE_BYTES])
                self._unsent = self._outgoing.read()
        self._send_unsent()
        count, self._unsent_count = self._unsent_count, 0
        return count

    def _send_unsent(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def _send_all(self, data: bytes, timeout_seconds: float) -> None:
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                if not wait_until_ready((), (self._socket,), timeout_seconds):
                    raise TimeoutError("the TLS handshake took too long") from None

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def shutdown(self, how: int) -> None:
        """Of the socket beneath: the end of TLS is not announced, every message here has its length."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
