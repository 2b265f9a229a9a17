"""The server's end of one client connection: the handshake, then requests and answers.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, cast

from msgspec.structs import replace

from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.handshake import (
    HANDSHAKE_LIMIT_BYTES,
    HANDSHAKE_SECONDS,
    HandshakeToServer,
    Refused,
    ServerHandshake,
)
from palpable._wire.messages import ClientRequest, ResultsPushed, TasksAccepted
from palpable.servants.intake import UNREAD_MAX_BYTES, Intake
from palpable.servants.requests import Requests

logger = logging.getLogger("palpable.server")

HOLD_SECONDS = 0.001
"""How long an acceptance waits for a result to travel with: a client that waits for that is woken once then. Twice as
long at most where calls follow each other, since the timer is not set anew for each."""
HANDSHAKES_MAX = 256
"""Handshakes at a time. Who comes then waits for its turn, unread, and its five seconds begin with that."""
LOOK_AGAIN_SECONDS = 0.001
"""When to look whether what was sent in one turn of the loop has left, if the loop will not say so itself."""
WAITING_MAX = 4096
"""Who wait for that; the next one is closed at once. All clients of a server come together when it has come back."""


class Admission:
    """What sessions share: the keys, what clients are told of the server, and who is connected."""

    def __init__(self, authkey: bytes, info: dict[str, Any], task_token: str, requests: Requests, limit: int) -> None:
        self.authkey = authkey
        self.info = info
        self.task_token = task_token
        self.requests = requests
        self.limit_bytes = limit
        self.sessions: set[ClientSession] = set()
        self._handshakes = 0
        self._waiting: deque[ClientSession] = deque()
        self._last_id = 0
        self._emptied = asyncio.Event()

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def arrive(self, session: ClientSession) -> None:
        """A connection is made: it may begin, or waits for its turn, or is one too many."""
        self.sessions.add(session)
        if self._handshakes < HANDSHAKES_MAX:
            self._handshakes += 1
            session.begin()
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(session)
            session.wait()
        else:
            session.abort()

    def handshake_over(self) -> None:
        """A handshake has ended, in any way: whose turn is it now?"""
        self._handshakes -= 1
        while self._waiting and self._handshakes < HANDSHAKES_MAX:
            session = self._waiting.popleft()
            if session in self.sessions:  # else it has gone meanwhile
                self._handshakes += 1
                session.begin()

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
        """Whether results may be pushed to it."""
        self._is_paused = False
        self._admission = admission
        self._handshake: ServerHandshake | None = ServerHandshake(
            admission.authkey, admission.info, admission.task_token
        )
        self._handshake_reader: FrameReader[Any] = FrameReader(HandshakeToServer, limit_bytes=HANDSHAKE_LIMIT_BYTES)
        self._reader: FrameReader[Any] = FrameReader(ClientRequest, limit_bytes=admission.limit_bytes)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._intake = Intake(self._serve, self._unread_bytes, self._set_reading)
        self._received_bytes = 0
        self._is_waiting = False
        self._held: list[int] = []
        """Requests whose acceptance waits for a result to travel with."""
        self._is_timer_set = False
        self._has_sent_held = False
        """Whether what was held was sent since the timer was set."""

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._admission.arrive(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._handshake is not None:
                self._shake_hands(data)
            else:
                self._intake.take(self._reader.feed(data))
        except FrameError as error:
            logger.warning("connection %d is closed: %s", self.connection_id, error)
            self.close()

    def pause_writing(self) -> None:
        self._is_paused = True
        self.is_writable = False

    def resume_writing(self) -> None:
        self._is_paused = False
        self.is_writable = True
        self._admission.requests.manager.delivery.writable_again(self)
        self._intake.go_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._admission.leave(self)
        self._transport = None
        self._intake.messages.clear()  # nobody was told that any of it was accepted
        if self._handshake is not None:
            if self._deadline is not None:  # it had begun
                self._end_handshake()
        else:
            self._admission.requests.disconnected(self)

    # --- called by the admission ---

    def wait(self) -> None:
        """Read nothing, for the time being."""
        if self._transport is not None:
            self._transport.pause_reading()
            self._is_waiting = True

    def begin(self) -> None:
        """The handshake may begin, and has its time."""
        if self._transport is not None:
            self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._transport.abort)
            if self._is_waiting:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

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
                self.inside_task = self._handshake.inside_task
                self._end_handshake()
                self._admission.requests.manager.peers[self.connection_id] = self
                return

    def _end_handshake(self) -> None:
        self._handshake = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._admission.handshake_over()

    def _serve(self, requests: deque[Any]) -> None:
        handle, intake = self._admission.requests.handle, self._intake
        waiting: list[Any] = []
        try:
            while requests:
                request = requests.popleft()
                if intake.must_wait(request):
                    waiting.append(request)
                else:
                    handle(self, request)
        finally:
            requests.extendleft(reversed(waiting))

    def _unread_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _set_reading(self, is_on: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if is_on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def owe(self, count: int) -> None:
        """The client is owed an answer of so many bytes, which waits for the disk; negative: it has got it."""
        self._intake.owe(count)

    def send(self, message: Any) -> None:
        """Send a message; does nothing when the connection is gone."""
        if self._transport is None:
            return
        if type(message) is TasksAccepted:
            # Nobody waits for that alone, but it would wake who waits for the result.
            self._held.append(message.request_id)
            if not self._is_timer_set:
                self._set_timer()
            return
        if self._held:
            self._has_sent_held = True
            if type(message) is ResultsPushed:
                accepted, self._held = self._held, []
                message = replace(message, accepted=accepted)
            else:
                self._send_held()
        frame = encode_frame(message)
        self._transport.write(frame)
        if self.is_writable and self._unread_bytes() > UNREAD_MAX_BYTES:
            # The loop sends at the end of its turn, and says only then that it could not send all.
            self.is_writable = False
            asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._look_again)

    def _look_again(self) -> None:
        if self._transport is None or self._is_paused:
            return  # `resume_writing` will be called
        if self._unread_bytes() > UNREAD_MAX_BYTES:
            asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._look_again)
        else:
            self.resume_writing()

    def _set_timer(self) -> None:
        self._is_timer_set, self._has_sent_held = True, False
        asyncio.get_running_loop().call_later(HOLD_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._is_timer_set = False
        if not self._has_sent_held:
            self._send_held()
        elif self._held:
            self._set_timer()  # it is younger than the timer

    def _send_held(self) -> None:
        if self._held and self._transport is not None:
            held, self._held = self._held, []
            self._transport.write(b"".join([encode_frame(TasksAccepted(request_id=number)) for number in held]))

    def close(self) -> None:
        """Close after what was sent has gone out."""
        self._send_held()
        if self._transport is not None:
            self._transport.close()
