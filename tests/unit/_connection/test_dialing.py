"""Connecting to the socket of a server that is about to listen."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from palpable._connection.address import Address
from palpable._connection.dialing import prove
from palpable.units.task_exceptions import ServerUnreachable
from support.wait import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the folder of the socket."""
    folder = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    yield folder
    os.close(folder)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket whose file is there, and that does not listen."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        yield made


def connect(path: Path) -> str:
    """Return why no connection came about."""
    with pytest.raises(ServerUnreachable) as caught:
        prove(Address(path=str(path)), b"key")
    return str(caught.value)


def test_a_client_that_finds_the_file_of_a_socket_before_its_server_listens_waits_for_it(
    tmp_path: Path, folder: int, made: socket.socket
) -> None:
    fcntl.flock(folder, fcntl.LOCK_EX)  # as a server does while it makes its socket
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(connect, tmp_path / "socket")
        wait_until(lambda: len(descriptors_of(tmp_path)) == 2)  # it was refused, and looks whether we hold the folder
        made.listen()
        fcntl.flock(folder, fcntl.LOCK_UN)
        made.settimeout(20)
        made.accept()[0].close()  # it has connected, and has us to thank that the rest goes no further
        assert "nobody listens there" not in waiting.result(timeout=20)


def test_a_socket_that_no_server_is_making_is_refused(tmp_path: Path, made: socket.socket) -> None:
    assert "nobody listens there" in connect(tmp_path / "socket")


def descriptors_of(path: Path) -> list[str]:
    """Return this process's descriptors of a file or folder."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}") == str(path):
                found.append(number)
        except FileNotFoundError:  # listed, and closed since
            pass
    return found
