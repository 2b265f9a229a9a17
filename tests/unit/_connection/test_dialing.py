"""Connecting to the socket of a server that is about to listen."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from palpable import Client
from palpable._connection import async_link, dialing, opening
from palpable._connection.address import Address
from palpable._connection.dialing import prove
from palpable._connection.opening import open_socket, unreachable
from palpable.units.task_exceptions import ServerUnreachable
from support.fake_server import FakeServer
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


def test_a_server_that_may_want_tls_is_told_with_its_address_for_that() -> None:
    reset = ConnectionResetError(104, "Connection reset by peer")
    assert "tls://host:80" in str(unreachable(Address(host="host", port=80), reset))
    assert "tls://" not in str(unreachable(Address(path="/socket"), reset))


class Interrupt:
    """A Ctrl-C at the beginning or the end of a function of ours: at the one of that number from now on."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "return") and "palpable" in frame.f_code.co_filename:
            self.left -= 1
            if not self.left:
                sys.setprofile(None)
                raise KeyboardInterrupt


def interrupt_each_step(connect: Callable[[], object]) -> int:
    """Call `connect` again and again, interrupted one step later each time, until it gets through; return the steps."""
    for number in itertools.count(1):
        sys.setprofile(Interrupt(number))
        try:
            connect()
            return number
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
    raise AssertionError("it never gets through")


def test_a_ctrl_c_at_any_step_of_connecting_leaves_no_socket_behind(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda complaint: complaints.append(str(complaint.exc_value)))
    gc.disable()  # an interrupt in what it calls would be its own complaint
    try:
        with Client(fake_server.address, None, b"key") as client:
            assert interrupt_each_step(client._get_connection) > 50
        with socket.create_server(("127.0.0.1", 0), backlog=100) as tcp:
            address = Address(host="127.0.0.1", port=tcp.getsockname()[1])
            assert interrupt_each_step(lambda: open_socket(address)) > 2
    finally:
        gc.enable()
    gc.collect()
    assert complaints == []


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


def test_a_server_that_does_not_answer_is_named_with_the_time_that_was_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (opening, dialing, async_link):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 1.0)
    address = Address(path=str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(address.path)
        silent.listen(1)
        said = rf"no server at unix://{address.path}: no answer within 1 s\. Is the server stopped, or too busy\?"
        with pytest.raises(ServerUnreachable, match=said):
            prove(address, b"key")
        with pytest.raises(ServerUnreachable, match=said):
            asyncio.run(async_link.open_link(address, b"key"))
        # The queue is full now: these are not even connected.
        with pytest.raises(ServerUnreachable, match=said):
            prove(address, b"key")
        with pytest.raises(ServerUnreachable, match=said):
            asyncio.run(async_link.open_link(address, b"key"))
    assert "firewall" in str(unreachable(Address(host="host", port=80), TimeoutError()))
