"""Fixtures of the command line: a folder for the default server, that server, and a client that finds it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from palpable import Client
from support import tasks
from support.command_line import Serve, first_line, started


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the default server, for commands and for clients in this process. Tasks can import `support`.

    Its store is in the folder `state` beside it.
    """
    monkeypatch.setenv("PALPABLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    paths = [str(Path(tasks.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(os.path.abspath(path) for path in paths if path))
    return tmp_path / "home"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts `palpable serve` with two workers and the given options; returns when it listens."""
    with ExitStack() as stack:

        def start(*options: object, folder: Path | None = None) -> subprocess.Popen[str]:
            process = stack.enter_context(started("serve", "--workers", 2, *options, folder=folder))
            process.says = first_line(process)  # type: ignore[attr-defined]
            return process

        yield start


@pytest.fixture
def default_server(serve: Serve) -> subprocess.Popen[str]:
    """The user's default server."""
    return serve()


@pytest.fixture
def memory_server(serve: Serve) -> subprocess.Popen[str]:
    """The same without a store: what it has not finished at its end has failed."""
    return serve("--store", "none")


@pytest.fixture
def client(default_server: subprocess.Popen[str]) -> Iterator[Client]:
    """A client that finds it by itself."""
    with Client() as client:
        yield client
