"""Bad peers, bad keys, bad bytes, bad numbers: a clear error, and everybody else is served as before."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from palpable import Client, Server
from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.handshake import ClientHandshake, HandshakeToClient, HandshakeToServer, Refused, ServerHandshake
from palpable._wire.messages import (
    PROTOCOL_VERSION,
    GetStatus,
    QueryResults,
    RequestFailed,
    ResultsPushed,
    ServerAnswer,
    SubmitTasks,
    TaskOptions,
    TaskRequest,
    TasksAccepted,
)
from palpable.units.task_exceptions import (
    AuthenticationFailed,
    PalpableError,
    ServerStartError,
    ServerUnreachable,
    VersionMismatch,
)
from support import tasks
from support.processes import server_process
from support.raw_wire import apart, ask, greeted_connection, impostor, raw_connection, read_to_end, receive
from support.wait import wait_until


@pytest.fixture
def unharmed(server: Server) -> Iterator[psutil.Process]:
    """The server process: after the test it still serves, holds no descriptor more, and has not grown."""
    process = server_process()
    with server.client() as client:
        assert client.map(tasks.double, [1, 2, 3]) == [2, 4, 6]
        descriptors, memory = process.num_fds(), process.memory_info().rss
        yield process
        assert client.map(tasks.double, [1, 2, 3]) == [2, 4, 6]
        wait_until(lambda: process.num_fds() <= descriptors + 4)  # idle task processes come and go
        assert process.memory_info().rss < memory + 30_000_000


# --- at the door ------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_with_a_clear_error(server: Server, unharmed: psutil.Process) -> None:
    with Client(server.address, server.family, b"not the key") as client:
        with pytest.raises(AuthenticationFailed, match="authkey"):
            client.run(tasks.double, 2)
        with pytest.raises(AuthenticationFailed):
            client.get_status()


def test_a_server_that_does_not_hold_the_key_is_refused_by_the_client(tmp_path: Path) -> None:
    def pretend(sock: socket.socket) -> None:
        handshake = ServerHandshake(b"another key", {})
        reader: FrameReader[Any] = FrameReader(HandshakeToServer)
        while True:
            sock.sendall(encode_frame(handshake.answer(receive(sock, reader))))

    with impostor(tmp_path, pretend) as path, Client(path, "AF_UNIX", b"the key") as client:
        with pytest.raises(AuthenticationFailed):
            client.run(tasks.double, 2)


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_no_server_at_the_address_is_an_error_that_names_it(tmp_path: Path, family: str) -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port, and nobody answers
        address = str(tmp_path / "nobody.sock") if family == "AF_UNIX" else placeholder.getsockname()
        with Client(address, family, b"key") as client:
            with pytest.raises(ServerUnreachable) as caught:
                client.run(tasks.double, 2)
            assert isinstance(caught.value, ConnectionError)
            assert str(address if family == "AF_UNIX" else address[1]) in str(caught.value)
            response = client.ajax_query_result("some-task")
            assert response == "ERROR"


def test_a_client_of_another_protocol_version_is_told_so(server: Server, unharmed: psutil.Process) -> None:
    hello = msgspec.structs.replace(ClientHandshake(server.authkey).hello(), version=PROTOCOL_VERSION + 1)
    with raw_connection(server) as sock:
        sock.sendall(encode_frame(hello))
        answer = receive(sock, FrameReader(HandshakeToClient))
        assert isinstance(answer, Refused)
        assert answer.error == "VersionMismatch"
        assert str(PROTOCOL_VERSION + 1) in answer.message
        assert read_to_end(sock) == b""


def test_a_server_of_another_protocol_version_is_a_clear_error(tmp_path: Path) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(encode_frame(Refused(error="VersionMismatch", message="this server speaks version 99")))

    with impostor(tmp_path, refuse) as path, Client(path, "AF_UNIX", b"key") as client:
        with pytest.raises(VersionMismatch, match="99"):
            client.run(tasks.double, 2)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x05\x00\x00\x00abcde", b"\xff\xff\xff\xffabc", b""],
    ids=["http", "garbage", "oversized", "nothing"],
)
def test_something_else_at_the_address_is_a_clear_error(tmp_path: Path, answer: bytes) -> None:
    def behave(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(answer)

    with impostor(tmp_path, behave) as path, Client(path, "AF_UNIX", b"key") as client:
        with pytest.raises(PalpableError):
            client.run(tasks.double, 2)


@pytest.mark.slow
def test_a_server_that_never_answers_the_handshake_is_given_up(tmp_path: Path) -> None:
    with impostor(tmp_path, lambda sock: read_to_end(sock) and None) as path, Client(path, "AF_UNIX", b"key") as client:
        start = time.monotonic()
        with pytest.raises(ServerUnreachable):
            client.run(tasks.double, 2)
        assert time.monotonic() - start < 15


BEFORE_HANDSHAKE = {
    "garbage": b"\x10\x00\x00\x00" + b"\xc1" * 16,
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an oversized frame": struct.pack("<I", 5000) + b"x" * 5000,
    "a frame of 4 GiB": b"\xff\xff\xff\xff" + b"x" * 100_000,
    "an empty frame": b"\x00\x00\x00\x00",
    "a request before the handshake": bytes(encode_frame(GetStatus(request_id=1))),
}


@pytest.mark.parametrize("kind", BEFORE_HANDSHAKE)
def test_bad_bytes_before_the_handshake_close_the_connection(
    server: Server, unharmed: psutil.Process, kind: str
) -> None:
    with raw_connection(server) as sock:
        try:
            sock.sendall(BEFORE_HANDSHAKE[kind])
        except ConnectionError:
            return
        assert len(read_to_end(sock)) < 4096


@pytest.mark.slow
def test_a_handshake_never_finished_is_closed_in_seconds(server: Server, unharmed: psutil.Process) -> None:
    start = time.monotonic()
    with raw_connection(server) as silent, raw_connection(server) as slow:
        slow.sendall(bytes(encode_frame(ClientHandshake(server.authkey).hello()))[:7])
        assert len(read_to_end(silent)) < 4096
        assert len(read_to_end(slow)) < 4096
    assert 3 < time.monotonic() - start < 10


def test_a_handshake_cut_short_is_forgotten(server: Server, unharmed: psutil.Process) -> None:
    hello = bytes(encode_frame(ClientHandshake(server.authkey).hello()))
    for length in range(0, len(hello), 7):
        with raw_connection(server) as sock:
            sock.sendall(hello[:length])


def test_connections_without_a_key_do_not_keep_others_out(server: Server, unharmed: psutil.Process) -> None:
    sockets = [raw_connection(server) for _ in range(100)]
    for connection in sockets:
        connection.__enter__()
    with server.client() as client:
        assert client.run(tasks.double, 4) == 8
    for connection in sockets:
        connection.__exit__(None, None, None)


# --- after the handshake ----------------------------------------------------------------------------------------

AFTER_HANDSHAKE = {
    "garbage": b"\x10\x00\x00\x00" + b"\xc1" * 16,
    "an unknown message": b"\x0e\x00\x00\x00" + b"\x81\xa4type\xa8no-such",
    "a frame of 4 GiB": b"\xff\xff\xff\xff" + b"x" * 100_000,
    "a message for somebody else": bytes(encode_frame({"type": "keep", "count": 5})),
    "a field of the wrong type": bytes(encode_frame({"type": "query", "request_id": "one", "task_ids": 5})),
}


@pytest.mark.parametrize("kind", AFTER_HANDSHAKE)
def test_bad_bytes_after_the_handshake_close_that_connection_alone(
    server: Server, unharmed: psutil.Process, kind: str
) -> None:
    with greeted_connection(server) as sock:
        try:
            sock.sendall(AFTER_HANDSHAKE[kind])
        except ConnectionError:
            return
        read_to_end(sock)


def test_a_frame_never_finished_harms_nobody(server: Server, unharmed: psutil.Process) -> None:
    frame = bytes(encode_frame(SubmitTasks(request_id=1, tasks=[], functions={"key": b"x" * 1_000_000})))
    with greeted_connection(server) as sock:
        sock.sendall(frame[: len(frame) // 2])
        with server.client() as client:
            assert client.run(tasks.double, 4) == 8


def test_a_frame_that_comes_byte_by_byte_is_a_frame_like_any_other(server: Server, unharmed: psutil.Process) -> None:
    frame = bytes(encode_frame(GetStatus(request_id=7)))
    with greeted_connection(server) as sock:
        for position in range(len(frame) - 1):
            sock.sendall(frame[position : position + 1])
        sock.sendall(frame[-1:])
        assert receive(sock, FrameReader(ServerAnswer)).request_id == 7


def test_a_reader_that_never_reads_its_results_does_not_stop_the_others(
    server: Server, unharmed: psutil.Process
) -> None:
    """From one that has asked for more than a megabyte the server reads no more: sending blocks then."""
    sent = 0

    def ask_on(sock: socket.socket) -> None:
        nonlocal sent
        with suppress(OSError):
            for number in range(5000):
                sock.sendall(encode_frame(GetStatus(request_id=number)))
                sent += 1

    with greeted_connection(server) as sock:
        sock.settimeout(None)
        asking = threading.Thread(target=ask_on, args=(sock,))
        asking.start()
        try:
            for least in (1, 100, 300):
                wait_until(lambda least=least: sent >= least)  # type: ignore[misc]
                with server.client() as client:
                    assert client.run(tasks.double, 4) == 8
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            asking.join()


def test_a_request_with_nonsense_in_it_is_refused_by_name(server: Server, unharmed: psutil.Process) -> None:
    with greeted_connection(server) as sock:
        nameless = TaskRequest("a-task", "call", "no-such-function", b"")
        answer = ask(sock, SubmitTasks(request_id=1, tasks=[nameless]))
        assert isinstance(answer, RequestFailed) and answer.request_id == 1
        negative = SubmitTasks(request_id=2, tasks=[], options=TaskOptions(timeout_seconds=-1.0))
        assert isinstance(ask(sock, negative), RequestFailed)
        answer = ask(sock, QueryResults(request_id=3, task_ids=["no-such-task"]))
        assert answer.reports == [None]


def test_a_payload_that_is_no_pickle_fails_its_task_alone(server: Server, unharmed: psutil.Process) -> None:
    with greeted_connection(server) as sock:
        broken = TaskRequest("a-task", "procedure", "", b"this is no pickle")
        sock.sendall(encode_frame(SubmitTasks(request_id=1, tasks=[broken])))
        reader: FrameReader[Any] = FrameReader(ServerAnswer)
        messages: list[Any] = []
        while len(messages) < 2:
            messages += apart(reader.feed(sock.recv(65536)))
        accepted, pushed = messages
        assert isinstance(accepted, TasksAccepted)
        assert isinstance(pushed, ResultsPushed)
        assert pushed.reports[0].outcome == "error"
        assert "Unpick" in pushed.reports[0].error_type


# --- parameters -------------------------------------------------------------------------------------------------


def test_a_second_server_at_a_unix_socket_in_use_is_refused(server: Server, unharmed: psutil.Process) -> None:
    second = Server(address=server.address, family="AF_UNIX", authkey=b"key", num_workers=1)
    try:
        with pytest.raises(ServerStartError, match="another server"):
            second.start()
    finally:
        second.close()


def test_a_second_server_at_a_port_in_use_is_refused() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        server = Server(address=("127.0.0.1", port), family="AF_INET", authkey=b"key", num_workers=1)
        try:
            with pytest.raises(ServerStartError, match=rf"{port}.*choose another port"):
                server.start()
        finally:
            server.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_workers", 0),
        ("num_workers", -1),
        ("num_workers", 1.5),
        ("num_workers", "two"),
        ("task_timeout_seconds", 0),
        ("task_timeout_seconds", -1.0),
        ("task_timeout_seconds", float("nan")),
        ("result_retention_capacity", -1),
        ("result_retention_seconds", -0.5),
        ("isolation", "thread"),
        ("family", "AF_CARRIER_PIGEON"),
    ],
)
def test_a_bad_number_for_the_server_is_refused_at_once_by_name(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        Server(**{"num_workers": 1, name: value})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


def test_the_word_for_no_file_is_refused_as_a_store() -> None:
    with pytest.raises(ValueError, match=r"store must be the path of a file\. .* leave it out"):
        Server(num_workers=1, store=":memory:")


@pytest.mark.parametrize("path", ["a\0b", "\udcff.db"])
@pytest.mark.parametrize("name", ["store", "logging_folder"])
def test_a_path_that_the_server_process_can_not_be_told_is_refused_at_once_by_name(name: str, path: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a path in UTF-8 without null characters"):
        Server(**{"num_workers": 1, name: path})


@pytest.mark.parametrize("authkey", ["text", 5, ["key"]])
def test_an_authkey_that_is_not_bytes_is_refused_at_once(tmp_path: Path, authkey: Any) -> None:
    with pytest.raises(TypeError, match="authkey"):
        Server(authkey=authkey, num_workers=1)
    with pytest.raises(TypeError, match="authkey"):
        Client(str(tmp_path / "socket"), "AF_UNIX", authkey)


def test_the_message_about_a_bad_authkey_does_not_show_it(tmp_path: Path) -> None:
    with pytest.raises(TypeError) as caught:
        Client(str(tmp_path / "socket"), "AF_UNIX", "secret words")  # type: ignore[arg-type]
    assert "secret words" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_seconds": 0},
        {"timeout_seconds": -1},
        {"timeout_seconds": float("nan")},
        {"priority": "high"},
        {"isolation": "thread"},
    ],
)
def test_a_bad_option_is_refused_at_once_by_name(client: Client, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        client.options(**options)


def test_a_tcp_address_of_the_world_needs_tls_or_a_word_that_it_is_wanted() -> None:
    with pytest.raises(ValueError, match="allow_plaintext"):
        Server(address=("0.0.0.0", 0), family="AF_INET", authkey=b"key", num_workers=1)


def test_a_unix_socket_path_that_is_too_long_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = str(tmp_path / ("long" * 30))
    with pytest.raises((ValueError, ServerStartError), match="long"):
        Server(address=path, family="AF_UNIX", authkey=b"key", num_workers=1).start()
