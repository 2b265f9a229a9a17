"""One socket to the server on an asyncio loop: the handshake, then messages in and out, and its end.

It breaks once, for good. A connection that goes on has a new link then (`async_connection`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, cast

from palpable._connection.address import Address
from palpable._connection.incoming import Incoming
from palpable._connection.inside import identity
from palpable._connection.opening import CONNECT_SECONDS, unreachable
from palpable._connection.outbox import Outbox
from palpable._connection.pending import Pending
from palpable._connection.tls_opening import certificates_in, tls_unreachable, trusting_anyone
from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.handshake import HANDSHAKE_LIMIT_BYTES, ClientHandshake, HandshakeToClient
from palpable._wire.messages import ServerAnswer
from palpable.units.task_exceptions import ServerError, ServerUnreachable

if TYPE_CHECKING:
    from palpable._connection.dialing import Tls


class AsyncLink(asyncio.Protocol):
    """A socket, from its first byte. Made by `open_link`; `serve` begins when it is proven.

    Args:
        address: where it leads, for messages.
        authkey: the key to prove, by both sides.
    """

    def __init__(self, address: Address, authkey: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._handshake: ClientHandshake | None = ClientHandshake(authkey, *identity())
        self._reader: FrameReader[Any] = FrameReader(HandshakeToClient, limit_bytes=HANDSHAKE_LIMIT_BYTES)
        self._transport: asyncio.Transport | None = None
        self._incoming: Incoming | None = None
        self._on_break: Callable[[AsyncLink], None] = lambda link: None
        self._is_flush_due = False
        self.is_full = False
        """Whether to `drain` before more is sent: the server takes no more, or the loop is due a turn."""
        self._is_turn_due = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self.outbox = Outbox()
        self.broken = ""
        """Why it is, if it is."""
        self.info: Mapping[str, Any] = {}
        self.inside_task = ""
        """The task this process runs, or was started by, if it is one of that server's."""
        self.proven: asyncio.Future[None] = self._loop.create_future()
        """Done when the handshake is."""

    def serve(self, pending: Pending, on_break: Callable[[AsyncLink], None]) -> None:
        """Deliver what comes to those who expect it.

        Args:
            on_break: called once, when it has broken.
        """
        self.outbox = Outbox(pending)
        self._incoming = Incoming(pending, self.outbox, self.flush)
        self._on_break = on_break

    @property
    def has_progressed(self) -> bool:
        """Whether anything came that was waited for."""
        return self._incoming is not None and self._incoming.has_progressed

    # --- called by the loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        assert self._handshake is not None
        self._transport.write(bytes(encode_frame(self._handshake.hello())))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                if self._handshake is not None:
                    self._shake_hands(message)
                elif self._incoming is not None:  # else nothing was asked yet
                    self._incoming.handle(message)
        except FrameError as error:
            if self._handshake is not None:
                self._refuse(ServerError(f"what listens at {self._address} is no Palpable server: {error}"))
            self.break_off(f"what it sent is not understood ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        self.break_off(str(error or "the server closed the connection"))
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()
        self.is_full = True

    def resume_writing(self) -> None:
        self._writable.set()
        self.is_full = self._is_turn_due

    def _shake_hands(self, message: Any) -> None:
        assert self._handshake is not None and self._transport is not None
        try:
            answer = self._handshake.answer(message)
        except Exception as error:
            self._refuse(error)
            return
        if answer is not None:
            self._transport.write(bytes(encode_frame(answer)))
            return
        assert self._handshake.welcome is not None
        self.info, self.inside_task = self._handshake.welcome.server, self._handshake.inside_task
        self._handshake = None
        self._reader = FrameReader(ServerAnswer, limit_bytes=(1 << 32) - 1)
        if not self.proven.done():
            self.proven.set_result(None)

    def _refuse(self, error: Exception) -> None:
        self._fail_proof(error)
        self.abort()

    def _fail_proof(self, error: Exception) -> None:
        if not self.proven.done():
            self.proven.set_exception(error)
            self.proven.exception()  # who was to look at it may have been cancelled; asyncio would complain

    # --- sending ----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait while the server takes no more; and give the loop a turn, if much was sent in this one."""
        if self._is_turn_due:
            self._is_turn_due = False
            self.is_full = not self._writable.is_set()
            await asyncio.sleep(0)
        await self._writable.wait()

    def flush_soon(self) -> None:
        """Send everything at the end of this turn of the loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def flush_batch(self) -> None:
        """Send everything: a full batch, so that the server can begin while the next is gathered in this turn."""
        self.flush()
        # Results may be here already. Whoever submits thousands in a row reads them meanwhile, not afterwards.
        self._is_turn_due = self.is_full = True

    def flush(self) -> None:
        """Send everything."""
        self._is_flush_due = False
        if self._transport is not None and not self.broken:
            self.outbox.flush(self._write, None)

    def _write(self, data: Any, flags: int = 0) -> int:
        assert self._transport is not None
        self._transport.write(bytes(data))  # a copy: the transport may keep it for longer than we do
        return len(data)

    # --- ends -------------------------------------------------------------------------------------------------------

    def break_off(self, reason: str) -> None:
        """It is broken; nothing is sent or delivered any more."""
        if self.broken:
            return
        self.broken = reason
        self._fail_proof(unreachable(self._address, ConnectionResetError(reason)))
        self._writable.set()
        self.is_full = self._is_turn_due
        self.abort()
        self._on_break(self)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is None:
            return
        try:
            self._transport.abort()
        except RuntimeError:
            # Its loop is closed: `asyncio.run` has ended, and the client is used in the next one. What the transport
            # would have the loop do later is done now; else its socket stays open until the garbage collector comes.
            finish = getattr(self._transport, "_call_connection_lost", None)
            if finish is not None:  # uvloop closes the sockets of a loop itself
                finish(None)

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the socket is."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            try:
                await asyncio.wait_for(self._closed.wait(), CONNECT_SECONDS)
            except TimeoutError:  # the server reads no more
                self.abort()


async def open_link(address: Address, authkey: bytes, tls: Tls = None) -> AsyncLink:
    """Return a link to the server at `address`, proven, as `dialing.prove` does."""
    if isinstance(tls, str | os.PathLike):
        pinned = certificates_in(tls)
        link = await _open(address, authkey, trusting_anyone(), pinned=pinned)
        if link is not None:
            return link
        tls = ssl.create_default_context(cafile=os.fspath(tls))
    elif tls is True:
        tls = ssl.create_default_context()
    link = await _open(address, authkey, tls or None)
    assert link is not None
    return link


async def _connected_unix(path: str) -> socket.socket:
    """Return a connected socket; wait for our turn while more wait to be accepted than the server's queue holds."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        for wait_seconds in chain((0.001, 0.003, 0.01, 0.03), repeat(0.1)):
            try:
                sock.connect(path)
                break
            except BlockingIOError:
                # The queue is full, and nothing tells when it no longer is: a Unix socket that does not block is not
                # connected later, as one of TCP is, but not at all. (`loop.sock_connect` takes it for connected.)
                await asyncio.sleep(wait_seconds)
        return sock
    except BaseException:
        sock.close()
        raise


async def _open(
    address: Address, authkey: bytes, context: ssl.SSLContext | None, pinned: set[bytes] | None = None
) -> AsyncLink | None:
    loop = asyncio.get_running_loop()
    link = AsyncLink(address, authkey) if pinned is None else _Pinned(address, authkey, pinned)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if address.path:
                await loop.create_unix_connection(lambda: link, sock=await _connected_unix(address.path))
            else:
                await loop.create_connection(
                    lambda: link,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context else None,
                )
            await link.proven
    except BaseException as error:
        link.abort()
        if isinstance(link, _Pinned) and link.is_other:
            return None
        if isinstance(error, ssl.SSLError):
            raise tls_unreachable(address, error) from None
        if isinstance(error, OSError) and not isinstance(error, ServerUnreachable):
            raise unreachable(address, error) from None
        raise
    return link


class _Pinned(AsyncLink):
    """A link that speaks only to a server with one of these certificates."""

    def __init__(self, address: Address, authkey: bytes, pinned: set[bytes]) -> None:
        super().__init__(address, authkey)
        self._pinned = pinned
        self.is_other = False
        """Whether the server showed another certificate. Nothing was said to it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if transport.get_extra_info("ssl_object").getpeercert(binary_form=True) in self._pinned:
            super().connection_made(transport)
            return
        self.is_other = True
        self._transport = cast(asyncio.Transport, transport)
        self._refuse(ServerError("another certificate"))
