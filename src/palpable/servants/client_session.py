"""The server's end of one client connection: the handshake, then requests and answers.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Any, cast

from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.handshake import (
    HANDSHAKE_LIMIT_BYTES,
    HANDSHAKE_SECONDS,
    HandshakeToServer,
    Refused,
    ServerHandshake,
)
from palpable._wire.messages import ClientRequest, TasksAccepted
from palpable.servants.requests import Requests

logger = logging.getLogger("palpable.server")

HOLD_SECONDS = 0.001
"""How long an acceptance may wait for a result to travel with: a client that waits for that is woken once then."""
HANDSHAKES_MAX = 256
"""Connections that have not proven themselves yet, at a time; the next one is closed at once."""


class Admission:
    """What sessions share: the key, what clients are told of the server, and who is connected."""

    def __init__(self, authkey: bytes, info: dict[str, Any], task_token: str, requests: Requests, limit: int) -> None:
        self.authkey = authkey
        self.info = info
        self.task_token = task_token
        self.requests = requests
        self.limit_bytes = limit
        self.sessions: set[ClientSession] = set()
        self.handshakes = 0
        self._last_id = 0
        self._emptied = asyncio.Event()

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def leave(self, session: ClientSession) -> None:
        """The connection is gone."""
        self.sessions.discard(session)
        if not self.sessions:
            self._emptied.set()

    async def close_all(self) -> None:
        """Close every connection after what was sent to it has gone out; return when the last one is closed."""
        self._emptied.clear()
        for session in list(self.sessions):
            session.close()
        if self.sessions:
            await self._emptied.wait()


class ClientSession(asyncio.Protocol):
    """One connection. Until the handshake is done it may send 4 KB, and has 5 seconds."""

    def __init__(self, admission: Admission) -> None:
        self.connection_id = admission.next_id()
        self.inside_task = ""
        self.is_writable = True
        self._admission = admission
        self._handshake: ServerHandshake | None = ServerHandshake(admission.authkey, admission.info)
        self._handshake_reader: FrameReader[Any] = FrameReader(HandshakeToServer, limit_bytes=HANDSHAKE_LIMIT_BYTES)
        self._reader: FrameReader[Any] = FrameReader(ClientRequest, limit_bytes=admission.limit_bytes)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._received_bytes = 0
        self._held = bytearray()
        """Acceptances that wait for a result to travel with."""
        self._is_timer_set = False

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._admission.sessions.add(self)
        self._admission.handshakes += 1
        if self._admission.handshakes > HANDSHAKES_MAX:
            self._transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        try:
            if self._handshake is not None:
                self._shake_hands(data)
            else:
                self._serve(self._reader.feed(data))
        except FrameError as error:
            logger.warning("connection %d is closed: %s", self.connection_id, error)
            self.close()

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._admission.requests.manager.delivery.writable_again(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._admission.leave(self)
        self._transport = None
        if self._handshake is not None:
            self._end_handshake()
        else:
            self._admission.requests.disconnected(self)

    # --- the rest ---

    def _shake_hands(self, data: bytes) -> None:
        assert self._handshake is not None
        self._received_bytes += len(data)
        if self._received_bytes > 2 * HANDSHAKE_LIMIT_BYTES:
            raise FrameError("too many bytes before the handshake")
        for message in self._handshake_reader.feed(data):
            answer = self._handshake.answer(message)
            self.send(answer)
            if isinstance(answer, Refused):
                logger.warning("connection %d is refused: %s", self.connection_id, answer.error)
                self.close()
                return
            if self._handshake.is_done:
                if hmac.compare_digest(self._handshake.inside_token, self._admission.task_token):
                    self.inside_task = self._handshake.inside_task
                self._end_handshake()
                self._admission.requests.manager.peers[self.connection_id] = self
                return

    def _end_handshake(self) -> None:
        self._handshake = None
        self._admission.handshakes -= 1
        if self._deadline is not None:
            self._deadline.cancel()

    def _serve(self, requests: list[Any]) -> None:
        for request in requests:
            self._admission.requests.handle(self, request)

    def send(self, message: Any) -> None:
        """Send a message; does nothing when the connection is gone."""
        if self._transport is None:
            return
        frame = encode_frame(message)
        if type(message) is TasksAccepted:
            # Nobody waits for that alone, but it would wake who waits for the result.
            self._held += frame
            if not self._is_timer_set:
                self._is_timer_set = True
                asyncio.get_running_loop().call_later(HOLD_SECONDS, self._on_timer)
            return
        if self._held:
            frame, self._held = self._held + frame, bytearray()
        self._transport.write(frame)

    def _on_timer(self) -> None:
        self._is_timer_set = False
        self._send_held()

    def _send_held(self) -> None:
        if self._held and self._transport is not None:
            self._transport.write(self._held)
            self._held = bytearray()

    def close(self) -> None:
        """Close after what was sent has gone out."""
        self._send_held()
        if self._transport is not None:
            self._transport.close()
