"""Servers that serve many tests one after another: a start costs more than most tests.

A module whose tests are clients and nothing more says `pytestmark = pytest.mark.shared_server`. Between its tests the
server is left without a task; a test that asks more of it, say to be the only one, is marked `own_server`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from support.wait import wait_until

if TYPE_CHECKING:
    from palpable import Server

_ZYGOTE = "_zygote/__main__.py"
_servers: dict[int, Server] = {}
"""Those that run, by their number of workers."""


def shared_server(folder: Path, num_workers: int) -> Server:
    """Return the one with that many workers; start it if it does not run. Its files are in `folder`."""
    from palpable import Server

    server = _servers.get(num_workers)
    if server is None:
        logs = folder / f"logs-{num_workers}"
        server = _servers[num_workers] = Server(logging_folder=str(logs), num_workers=num_workers).start()
    return server


def settle(server: Server) -> None:
    """Cancel what a test left unfinished; return when nothing runs but the server, its zygotes and idle processes.

    Raises:
        AssertionError: it does not get there, or the server has ended.
    """
    if server.pid is None:
        close(server)
        raise AssertionError("the shared server has ended in this test")
    with server.client() as client:
        unfinished = functools.partial(client.tasks, ("scheduled", "ready", "running", "retrying"), 10_000)
        for task in unfinished():
            client.cancel(task.task_id)
        wait_until(lambda: not unfinished())
    wait_until(lambda: not _strangers(server))


def close(server: Server) -> None:
    """End one; the next test that needs it starts another."""
    for number in [number for number, other in _servers.items() if other is server]:
        del _servers[number]
    server.close()


def close_all() -> None:
    """End them all."""
    for server in list(_servers.values()):
        close(server)


def pids() -> set[int]:
    """The processes of all of them: servers, zygotes, task processes."""
    found = set()
    for server in _servers.values():
        if server.pid is not None:
            found |= {server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))}
    return found


def folders() -> list[Path]:
    """Where they have their sockets and spools."""
    return [Path(str(server.address)).parent for server in _servers.values()]


def _strangers(server: Server) -> list[psutil.Process]:
    """What is in the tree of the server and was not forked from a zygote of it."""
    found = []
    for child in psutil.Process(server.pid).children(recursive=True):
        try:
            if not any(argument.endswith(_ZYGOTE) for argument in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
