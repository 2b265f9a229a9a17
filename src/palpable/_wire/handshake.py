"""The handshake: each side proves to the other that it holds the authkey, before anything else is said.

    client                                    server
    Hello: version, nonce               -->
                                        <--   Challenge: nonce, the server's proof   (or Refused)
    Proof: the client's proof           -->      (and that of the task it runs in, if it does)
                                        <--   Welcome: what the client should know   (or Refused)

A proof is HMAC-SHA-256 under the authkey over the role that makes it, the version, both nonces, and what the client
said of itself. So a proof can't be sent back to its maker (the roles differ), nor used again (the nonces differ), nor
can the Hello be changed on the way. The key never travels. Proofs are compared in constant time.

A client that runs in a task, or was started by one, can't know yet whether the server is that of its task. It proves
that likewise, under the token of the task: only the task's own server has that token too. The Welcome says whether it
is; to any other server it is a client like all others, and no other server learns the token.

Prior art: challenge and response as in `multiprocessing.connection`; here mutual in four messages, with the version
inside the proof, and no choice of digest.

Pure: bytes and messages, no sockets. The caller enforces the two limits below until the handshake is done.
"""

from __future__ import annotations

import os
from typing import Any

import palpable
from palpable._wire.messages import PROTOCOL_VERSION, Message
from palpable.units.task_exceptions import AuthenticationFailed, ServerError, VersionMismatch, error_named

HANDSHAKE_LIMIT_BYTES = 4096
"""The largest frame accepted before the handshake is done, either way."""
HANDSHAKE_SECONDS = 5.0
"""How long a peer may take for all of it."""

_NONCE_BYTES = 32


class Hello(Message, frozen=True, tag="hello"):
    """Client: the first message of a connection."""

    version: int
    palpable_version: str
    nonce: bytes
    inside_task: str = ""
    """The id of the task whose code makes this connection. It may be a task of another server."""


class Challenge(Message, frozen=True, tag="challenge"):
    """Server: its own proof, and the nonce for the client's."""

    nonce: bytes
    proof: bytes


class Proof(Message, frozen=True, tag="proof"):
    """Client: its proof. The server accepts nothing else now."""

    proof: bytes
    inside_proof: bytes = b""
    """Made with the token of the task that the Hello names."""


class Welcome(Message, frozen=True, tag="welcome"):
    """Server: the handshake is done."""

    server: dict[str, Any]
    is_inside_task: bool = False
    """Whether the task that the Hello names is one of this server's, and the client has proven that it runs there."""


class Refused(Message, frozen=True, tag="refused"):
    """Server: this connection ends here. Says why in one of two ways, and nothing else about the server."""

    error: str
    """The name of a class of `palpable.units.task_exceptions`."""
    message: str


HandshakeToServer = Hello | Proof
HandshakeToClient = Challenge | Welcome | Refused


class ClientHandshake:
    """The client's half.

    Args:
        authkey: the key both sides hold.
        inside_task: the id of the task this runs in, of whichever server; "" outside of tasks.
        inside_token: the token of that task. Without it nothing is said of the task.

    Raises:
        TypeError: the key is not bytes.

    Example:
        >>> client, server = ClientHandshake(b"key"), ServerHandshake(b"key", {"num_workers": 2})
        >>> proof = client.answer(server.answer(client.hello()))
        >>> client.answer(server.answer(proof)), client.welcome.server, server.is_done
        (None, {'num_workers': 2}, True)
    """

    def __init__(self, authkey: bytes, inside_task: str = "", inside_token: str = "") -> None:
        self._authkey = checked_authkey(authkey)
        self._hello = Hello(
            version=PROTOCOL_VERSION,
            palpable_version=palpable.__version__,
            nonce=os.urandom(_NONCE_BYTES),
            inside_task=inside_task if inside_token else "",
        )
        self._inside_token = inside_token if inside_task else ""
        self._has_proven = False
        self.welcome: Welcome | None = None
        """The server's last word, once it has come."""

    @property
    def inside_task(self) -> str:
        """The id of the task this runs in, if it is one of this server's; "" before the server has said so."""
        return self._hello.inside_task if self.welcome is not None and self.welcome.is_inside_task else ""

    def hello(self) -> Hello:
        """Return the first message."""
        return self._hello

    def answer(self, message: Challenge | Welcome | Refused) -> Proof | None:
        """Return what to send next; None when the handshake is done and `welcome` is set.

        Raises:
            AuthenticationFailed: one side does not hold the key of the other.
            VersionMismatch: the server is of a version that does not understand this one.
            ServerError: the server refuses for another reason, or answers out of turn.
        """
        if isinstance(message, Refused):
            raise error_named(message.error, message.message)
        if isinstance(message, Challenge) and not self._has_proven:
            return self._prove(message)
        if isinstance(message, Welcome) and self._has_proven and self.welcome is None:
            self.welcome = message
            return None
        # A Welcome before the server has proven itself lands here too.
        raise ServerError(
            f"the server answered out of turn ({type(message).__name__}): what listens there is no Palpable server"
        )

    def _prove(self, challenge: Challenge) -> Proof:
        if len(challenge.nonce) != _NONCE_BYTES or not _are_equal(
            challenge.proof, _proof(self._authkey, b"server", self._hello, challenge.nonce)
        ):
            raise AuthenticationFailed(
                "the server does not hold the same authkey. Another server may listen at this address: check the "
                "address, and the key (authkey, PALPABLE_AUTHKEY or the key file)."
            )
        self._has_proven = True
        return Proof(
            proof=_proof(self._authkey, b"client", self._hello, challenge.nonce),
            inside_proof=_inside_proof(self._inside_token, self._hello, challenge.nonce),
        )


class ServerHandshake:
    """The server's half, for one connection.

    Args:
        authkey: the key both sides hold.
        info: what a client should know of the server; sent in `Welcome`.
        task_token: what this server gives its tasks, for their proofs; "": it has no tasks.

    Raises:
        TypeError: the key is not bytes.
    """

    def __init__(self, authkey: bytes, info: dict[str, Any], task_token: str = "") -> None:
        self._authkey = checked_authkey(authkey)
        self._info = info
        self._task_token = task_token
        self._nonce = os.urandom(_NONCE_BYTES)
        self._hello: Hello | None = None
        self.is_done = False
        """Whether the client has proven itself, and requests may follow."""
        self.is_refused = False
        """Whether the answer given was a refusal: send it, then close."""
        self.inside_task = ""
        """The id of the task that the client has proven to run in."""

    def answer(self, message: Hello | Proof) -> Challenge | Welcome | Refused:
        """Return what to send back. Never raises."""
        if self.is_refused or self.is_done:
            return self._refuse(ServerError, "the handshake is over")
        if isinstance(message, Hello) and self._hello is None:
            return self._challenge(message)
        if isinstance(message, Proof) and self._hello is not None:
            return self._check(message, self._hello)
        return self._refuse(ServerError, "a message out of turn")

    def _challenge(self, hello: Hello) -> Challenge | Refused:
        if hello.version != PROTOCOL_VERSION:
            return self._refuse(
                VersionMismatch,
                f"the server speaks version {PROTOCOL_VERSION} of the protocol, the client version {hello.version}. "
                f"Install the same version of palpable on both sides.",
            )
        if len(hello.nonce) != _NONCE_BYTES:
            return self._refuse(ServerError, f"the nonce is not {_NONCE_BYTES} bytes long")
        self._hello = hello
        return Challenge(nonce=self._nonce, proof=_proof(self._authkey, b"server", hello, self._nonce))

    def _check(self, message: Proof, hello: Hello) -> Welcome | Refused:
        if not _are_equal(message.proof, _proof(self._authkey, b"client", hello, self._nonce)):
            return self._refuse(
                AuthenticationFailed,
                "the authkey is not the server's. Check it (authkey, PALPABLE_AUTHKEY or the key file).",
            )
        self.is_done = True
        inside_proof = _inside_proof(self._task_token, hello, self._nonce)
        if inside_proof and _are_equal(message.inside_proof, inside_proof):
            self.inside_task = hello.inside_task
        return Welcome(server=self._info, is_inside_task=bool(self.inside_task))

    def _refuse(self, error: type[Exception], message: str) -> Refused:
        self.is_refused = True
        self.is_done = False
        return Refused(error=error.__name__, message=message)


def checked_authkey(authkey: bytes) -> bytes:
    """Return `authkey` as bytes.

    Raises:
        TypeError: it is not bytes. The message names its type, never its value.
        ValueError: it is empty.
    """
    if not isinstance(authkey, bytes | bytearray):
        raise TypeError(
            f"authkey must be bytes, not {type(authkey).__name__}: write b'...' or encode the text (text.encode())"
        )
    if not authkey:
        raise ValueError("authkey must not be empty: anybody could guess it")
    return bytes(authkey)


def _proof(authkey: bytes, role: bytes, hello: Hello, server_nonce: bytes) -> bytes:
    parts = (
        b"palpable handshake",
        role,
        str(hello.version).encode(),
        hello.nonce,
        server_nonce,
        hello.palpable_version.encode(),
        hello.inside_task.encode(),
    )
    # Each part with its length, so that no two lists of parts make the same text.
    text = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return bytes(_hmac().digest(authkey, text, "sha256"))


def _are_equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where they differ."""
    return bool(_hmac().compare_digest(one, other))


def _hmac() -> Any:
    """Return the module. It takes OpenSSL along, which a task whose code imports a client may have no use for."""
    import hmac

    return hmac


def _inside_proof(token: str, hello: Hello, server_nonce: bytes) -> bytes:
    """Return the proof that its maker holds the token of the task which the Hello names; empty without these two."""
    return _proof(token.encode(), b"task", hello, server_nonce) if token and hello.inside_task else b""
