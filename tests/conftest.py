"""Fixtures of all tests: a server, a client of it, and the proof that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import shared_servers
from support.leaks import find_leaks, kill_leaked, take_stock

if TYPE_CHECKING:
    from palpable import Client, Server

SERVERS = {"server": 2, "lone_server": 1}
"""How many workers they have."""


def pytest_configure() -> None:
    """What a shell has a command in the background ignore (and `nohup` any), all that it starts would ignore too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)  # still ignored here, but by nobody that is executed


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files and the user's default server live in a folder of this test run alone."""
    folder = tmp_path_factory.getbasetemp() / "t"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PALPABLE_") and name != "PALPABLE_TEST_RUN"]:
            patch.delenv(name)
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("PALPABLE_HOME", str(tmp_path_factory.getbasetemp() / "home"))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request: pytest.FixtureRequest, _own_folders: None) -> Iterator[None]:
    """After each test: no process, thread, file descriptor, socket file or temporary folder that was not there before.

    A unit test has none of these to begin with; for the others the whole machine is searched.
    """
    if not _may_leave_something(request.node):
        yield
        return
    if _shares_servers(request.node):  # which are there before and after
        for name, num_workers in SERVERS.items():
            if name in request.fixturenames:
                shared_servers.shared_server(request.getfixturevalue("shared_folder"), num_workers)
    else:  # it may look for servers, and end those that it finds
        shared_servers.close_all()
    folders = [request.getfixturevalue("tmp_path")]
    before = take_stock(folders)
    yield
    leaks = find_leaks(before, folders)
    if leaks:
        shared_servers.close_all()  # else they are taken for what is left behind
        kill_leaked(before)
        pytest.fail("left behind:\n  " + "\n  ".join(leaks), pytrace=False)


def _may_leave_something(node: pytest.Item) -> bool:
    return not {"unit", "property"} & set(node.path.parts)


@pytest.fixture(scope="session")
def shared_folder(_own_folders: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the servers that many tests share, which end with the last test."""
    yield tmp_path_factory.mktemp("shared")
    shared_servers.close_all()


def _shares_servers(node: pytest.Item) -> bool:
    return bool(node.get_closest_marker("shared_server")) and not node.get_closest_marker("own_server")


def _server(request: pytest.FixtureRequest, num_workers: int) -> Iterator[Server]:
    """A server of the test's own, or one that it shares (`support/shared_servers.py`)."""
    from palpable import Server

    if _shares_servers(request.node):
        server = shared_servers.shared_server(request.getfixturevalue("shared_folder"), num_workers)
        yield server
        shared_servers.settle(server)
    else:
        with Server(
            logging_folder=str(request.getfixturevalue("tmp_path") / "logs"), num_workers=num_workers
        ) as server:
            yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server with two workers."""
    yield from _server(request, SERVERS["server"])


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of `server`."""
    with server.client() as client:
        yield client


@pytest.fixture
def lone_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server with a single worker: what must not deadlock, must not deadlock here."""
    yield from _server(request, SERVERS["lone_server"])


@pytest.fixture
def lone_client(lone_server: Server) -> Iterator[Client]:
    """A client of `lone_server`."""
    with lone_server.client() as client:
        yield client


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 megabytes. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
