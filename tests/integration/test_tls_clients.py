"""Every kind of client over TLS: what is trusted, and that both directions may be full at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import AsyncClient, Client, Server, ServerUnreachable
from palpable.units.task_exceptions import PalpableError
from support import tasks

FOLDER = Path(__file__).parents[1] / "support" / "tls"
CERTIFICATE, KEY, OTHER_CERTIFICATE = FOLDER / "server.crt", FOLDER / "server.key", FOLDER / "other.crt"


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Server]:
    with Server(
        tmp_path / "logs", ("127.0.0.1", 0), authkey=b"key", num_workers=2, isolation="worker", tls=(CERTIFICATE, KEY)
    ) as server:
        yield server


def test_large_payloads_cross_in_both_directions_at_once(tls_server: Server) -> None:
    data = bytes(range(256)) * 4000
    with tls_server.client() as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(result == data for result in pool.map(lambda _: client.run(bytes, data), range(12)))
        futures = [client.submit(bytes, data) for _ in range(12)]
        assert all(future.result(timeout=30) == data for future in futures)


def test_a_context_of_ones_own_is_used(tls_server: Server) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    context.check_hostname = False
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with Client(tls_server.address, "AF_INET", b"key", tls=context) as client:
        assert client.run(tasks.double, 2) == 4


def test_a_self_signed_certificate_is_not_trusted_without_being_named(tls_server: Server) -> None:
    with (
        Client(tls_server.address, "AF_INET", b"key", tls=True) as client,
        pytest.raises(ServerUnreachable, match=r"not trusted.*pass its file"),
    ):
        client.run(tasks.double, 2)


def test_an_async_client_trusts_what_it_was_given_and_nothing_else(tls_server: Server) -> None:
    async def call(tls: Any) -> Any:
        async with AsyncClient(tls_server.address, "AF_INET", b"key", tls=tls) as client:
            return await client.map(tasks.double, range(50)), await client.run(len, b"x" * 3_000_000)

    assert asyncio.run(call(CERTIFICATE)) == (list(range(0, 100, 2)), 3_000_000)
    for tls in (OTHER_CERTIFICATE, True):
        with pytest.raises(ServerUnreachable, match="not trusted"):
            asyncio.run(call(tls))
    with pytest.raises(PalpableError):
        asyncio.run(call(None))


def test_an_async_client_with_tls_is_refused_by_a_server_without(tmp_path: Path) -> None:
    async def call(address: Any) -> Any:
        async with AsyncClient(address, "AF_INET", b"key", tls=CERTIFICATE) as client:
            return await client.run(tasks.double, 2)

    with Server(tmp_path / "logs", ("127.0.0.1", 0), authkey=b"key", num_workers=1) as server:
        with pytest.raises(PalpableError):
            asyncio.run(call(server.address))
