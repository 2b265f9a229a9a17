"""A fake server in a thread of the test, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable import Client
from support.fake_server import FakeServer


@pytest.fixture
def fake_server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path) as server:
        yield server


@pytest.fixture
def fake_client(fake_server: FakeServer) -> Iterator[Client]:
    with Client(fake_server.address, "AF_UNIX", fake_server.authkey) as client:
        yield client
