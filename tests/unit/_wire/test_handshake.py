"""Both sides prove the key; nothing else is told to who does not hold it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from palpable._wire import handshake
from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.handshake import (
    HANDSHAKE_LIMIT_BYTES,
    Challenge,
    ClientHandshake,
    HandshakeToClient,
    HandshakeToServer,
    Hello,
    Proof,
    Refused,
    ServerHandshake,
    Welcome,
)
from palpable.units.task_exceptions import AuthenticationFailed, ServerError, VersionMismatch

KEY = b"the key of the server"
INFO = {"server_id": "s1", "num_workers": 4, "isolation": "task", "pid": 12}


def meet(client: ClientHandshake, server: ServerHandshake) -> None:
    """Let both talk, over frames, until the client is done or raises."""
    to_server: FrameReader[Any] = FrameReader(HandshakeToServer, limit_bytes=HANDSHAKE_LIMIT_BYTES)
    to_client: FrameReader[Any] = FrameReader(HandshakeToClient, limit_bytes=HANDSHAKE_LIMIT_BYTES)
    message: Any = client.hello()
    while message is not None:
        [received] = to_server.feed(encode_frame(message))
        [answer] = to_client.feed(encode_frame(server.answer(received)))
        message = client.answer(answer)


def test_two_who_hold_the_key_meet() -> None:
    client, server = ClientHandshake(KEY), ServerHandshake(KEY, INFO)
    meet(client, server)
    assert client.welcome is not None and client.welcome.server == INFO
    assert server.is_done and not server.is_refused
    assert (client.inside_task, server.inside_task) == ("", "")


def test_both_know_of_a_client_inside_a_task_of_the_server() -> None:
    client, server = ClientHandshake(KEY, "task", "token"), ServerHandshake(KEY, INFO, "token")
    meet(client, server)
    assert (client.inside_task, server.inside_task) == ("task", "task")


@pytest.mark.parametrize(
    ("inside", "server_token"),
    [(("task", "token"), "another"), (("task", "token"), ""), (("task", ""), "token"), (("", "token"), "token")],
)
def test_a_client_inside_a_task_of_another_server_is_one_like_all(inside: tuple[str, str], server_token: str) -> None:
    client, server = ClientHandshake(KEY, *inside), ServerHandshake(KEY, INFO, server_token)
    meet(client, server)
    assert client.welcome is not None and server.is_done
    assert (client.inside_task, server.inside_task) == ("", "")


def test_a_client_that_holds_no_token_is_in_no_task_whatever_it_says() -> None:
    for proof in (b"", bytes(32)):
        client, server = ClientHandshake(KEY, "task", "guessed"), ServerHandshake(KEY, INFO, "token")
        challenge = server.answer(client.hello())
        assert isinstance(challenge, Challenge)
        said = client.answer(challenge)
        assert said is not None
        assert server.answer(msgspec.structs.replace(said, inside_proof=proof)) == Welcome(server=INFO)
        assert server.inside_task == ""


def test_the_token_of_a_task_is_told_to_nobody() -> None:
    client, server = ClientHandshake(KEY, "task", "the token"), ServerHandshake(KEY, INFO, "the token")
    hello = client.hello()
    challenge = server.answer(hello)
    assert isinstance(challenge, Challenge)
    assert b"the token" not in encode_frame(hello) + encode_frame(client.answer(challenge))


def test_a_client_with_a_wrong_key_sees_at_once_that_the_server_has_another() -> None:
    client, server = ClientHandshake(b"wrong"), ServerHandshake(KEY, INFO)
    with pytest.raises(AuthenticationFailed, match="authkey"):
        meet(client, server)
    assert client.welcome is None and not server.is_done


def test_a_client_that_does_not_care_is_refused_and_told_nothing() -> None:
    server = ServerHandshake(KEY, INFO)
    server.answer(ClientHandshake(b"wrong").hello())
    refused = server.answer(Proof(proof=bytes(32)))
    assert isinstance(refused, Refused) and server.is_refused and not server.is_done
    assert refused.error == "AuthenticationFailed"
    text = str(msgspec.to_builtins(refused))
    assert all(str(fact) not in text for fact in INFO.values())
    with pytest.raises(AuthenticationFailed):
        ClientHandshake(KEY).answer(refused)


def test_a_server_that_does_not_hold_the_key_is_not_given_a_proof() -> None:
    client = ClientHandshake(KEY)
    for challenge in (
        Challenge(nonce=bytes(32), proof=bytes(32)),
        Challenge(nonce=b"", proof=b""),
        Challenge(nonce=client.hello().nonce, proof=client.hello().nonce),
    ):
        with pytest.raises(AuthenticationFailed):
            client.answer(challenge)
    with pytest.raises(ServerError, match="out of turn"):
        client.answer(Welcome(server={}))
    assert client.welcome is None


def test_a_proof_cannot_be_sent_back_to_its_maker_nor_used_twice() -> None:
    client = ClientHandshake(KEY)
    first = ServerHandshake(KEY, INFO)
    challenge = first.answer(client.hello())
    assert isinstance(challenge, Challenge)
    assert isinstance(first.answer(Proof(proof=challenge.proof)), Refused)

    second = ServerHandshake(KEY, INFO)
    again = second.answer(client.hello())
    assert isinstance(again, Challenge)
    proof = client.answer(again)
    assert proof is not None
    third = ServerHandshake(KEY, INFO)
    third.answer(client.hello())
    assert isinstance(third.answer(proof), Refused)
    assert isinstance(second.answer(proof), Welcome)


@pytest.mark.parametrize("changes", [{"inside_task": "another"}, {"palpable_version": "9"}, {"nonce": bytes(32)}])
def test_a_hello_changed_on_the_way_is_found_out(changes: dict[str, Any]) -> None:
    client, server = ClientHandshake(KEY), ServerHandshake(KEY, INFO)
    challenge = server.answer(msgspec.structs.replace(client.hello(), **changes))
    assert isinstance(challenge, Challenge)
    with pytest.raises(AuthenticationFailed):
        client.answer(challenge)


def test_parts_cannot_slide_into_each_other() -> None:
    first = msgspec.structs.replace(ClientHandshake(KEY).hello(), palpable_version="ab", inside_task="c")
    second = msgspec.structs.replace(first, palpable_version="a", inside_task="bc")
    assert handshake._proof(KEY, b"server", first, b"") != handshake._proof(KEY, b"server", second, b"")


def test_another_version_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PROTOCOL_VERSION", 7)
    client = ClientHandshake(KEY)
    monkeypatch.undo()
    server = ServerHandshake(KEY, INFO)
    with pytest.raises(VersionMismatch, match=r"version 1 .* version 7"):
        meet(client, server)
    assert server.is_refused


def test_messages_out_of_turn_are_refused() -> None:
    hello = ClientHandshake(KEY).hello()
    server = ServerHandshake(KEY, INFO)
    assert isinstance(server.answer(Proof(proof=b"")), Refused)
    assert isinstance(server.answer(hello), Refused), "after a refusal there is no second try"

    server = ServerHandshake(KEY, INFO)
    server.answer(hello)
    assert isinstance(server.answer(hello), Refused)

    client, server = ClientHandshake(KEY), ServerHandshake(KEY, INFO)
    meet(client, server)
    assert isinstance(server.answer(hello), Refused) and not server.is_done


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_a_nonce_of_another_length_is_refused(size: int) -> None:
    hello = Hello(version=1, palpable_version="1", nonce=bytes(size))
    assert isinstance(ServerHandshake(KEY, INFO).answer(hello), Refused)


@pytest.mark.parametrize("make", [ClientHandshake, lambda key: ServerHandshake(key, {})])
def test_a_key_must_be_bytes_and_is_never_shown(make: Any) -> None:
    with pytest.raises(TypeError, match="must be bytes, not str") as caught:
        make("secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="NoneType"):
        make(None)
    with pytest.raises(ValueError, match="empty"):
        make(b"")
    make(bytearray(b"fine"))


def test_nothing_that_can_be_printed_holds_the_key() -> None:
    client, server = ClientHandshake(KEY), ServerHandshake(KEY, INFO)
    challenge = server.answer(client.hello())
    shown = repr([client, server, client.hello(), challenge, client.answer(challenge)])
    assert KEY.decode() not in shown


def test_every_message_fits_well_into_the_limit() -> None:
    client, server = ClientHandshake(KEY, "t" * 32, "u" * 64), ServerHandshake(KEY, INFO)
    challenge = server.answer(client.hello())
    proof = client.answer(challenge)
    assert proof is not None
    for message in (client.hello(), challenge, proof, server.answer(proof)):
        assert len(encode_frame(message)) < HANDSHAKE_LIMIT_BYTES / 4
