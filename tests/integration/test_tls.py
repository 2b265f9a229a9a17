"""A TCP address that other machines can reach speaks TLS."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable import Client, Server
from palpable.units.task_exceptions import PalpableError, ServerStartError
from support import tasks
from support.raw_wire import read_to_end

FOLDER = Path(__file__).parents[1] / "support" / "tls"
CERTIFICATE, KEY, OTHER_CERTIFICATE = FOLDER / "server.crt", FOLDER / "server.key", FOLDER / "other.crt"


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Server]:
    """A server that speaks TLS on a port chosen by the system."""
    with Server(tmp_path / "logs", ("127.0.0.1", 0), authkey=b"key", num_workers=1, tls=(CERTIFICATE, KEY)) as server:
        yield server


def test_a_client_that_trusts_the_certificate_is_served(tls_server: Server) -> None:
    with tls_server.client() as client:
        assert client.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]
        assert client.submit(len, b"x" * 5_000_000).result(timeout=30) == 5_000_000


def test_sub_tasks_and_output_work_over_tls_too(tls_server: Server) -> None:
    with tls_server.client() as client:
        assert client.run(tasks.fib, 5) == 5
        future = client.submit(tasks.print_line, "hello")
        assert future.result(timeout=20) == "hello"
        assert client.logs(future.task_id) == "hello\n"


def test_a_client_that_trusts_another_certificate_refuses_the_server(tls_server: Server) -> None:
    with Client(tls_server.address, "AF_INET", b"key", tls=OTHER_CERTIFICATE) as client:
        with pytest.raises(PalpableError, match=r"(?i)certificate"):
            client.run(tasks.double, 1)


def test_a_server_whose_certificate_cannot_be_used_says_which_file(tmp_path: Path) -> None:
    for certificate in (tmp_path / "missing.crt", KEY, OTHER_CERTIFICATE):
        server = Server(tmp_path / "logs", ("127.0.0.1", 0), authkey=b"key", num_workers=1, tls=(certificate, KEY))
        with pytest.raises(ServerStartError, match=certificate.name) as caught:
            server.start()
        assert "listen" not in str(caught.value)
        server.close()


def test_a_client_without_tls_gets_a_clear_error(tls_server: Server) -> None:
    with Client(tls_server.address, "AF_INET", b"key") as client, pytest.raises(PalpableError):
        client.run(tasks.double, 1)
    with tls_server.client() as client:
        assert client.run(tasks.double, 1) == 2


def test_a_client_with_tls_gets_a_clear_error_from_a_server_without(tmp_path: Path) -> None:
    with Server(tmp_path / "logs", ("127.0.0.1", 0), authkey=b"key", num_workers=1) as server:
        with Client(server.address, "AF_INET", b"key", tls=CERTIFICATE) as client, pytest.raises(PalpableError):
            client.run(tasks.double, 1)
        with server.client() as client:
            assert client.run(tasks.double, 1) == 2


@pytest.mark.slow
def test_who_connects_and_does_not_begin_to_speak_tls_is_cut_off(tls_server: Server) -> None:
    with socket.create_connection(tls_server.address, timeout=40) as sock:
        assert read_to_end(sock) == b""
