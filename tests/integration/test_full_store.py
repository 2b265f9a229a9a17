"""A full disk under the store: new tasks are refused with a clear error, what runs ends, and it goes on with room.

A store that can't be written for another reason ends the server.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from palpable import Client, RunFunction, Server, StoreFull
from support import tasks
from support.wait import wait_until


def _fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Write a file until no more than that is left."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize >= leave_bytes + size:
                file.write(b"x" * size)
    return filler


def _is_accepted(client: Client) -> bool:
    try:
        return client.run(tasks.double, 1) == 2
    except StoreFull:
        return False


def test_with_little_room_new_tasks_are_refused_and_what_runs_ends(small_disk: Path, tmp_path: Path) -> None:
    with Server(num_workers=2, store=small_disk / "jobs.db") as server, server.client() as client:
        running = client.run_procedure(RunFunction(tasks.hold, str(tmp_path), "held"), 0.001).task_id
        wait_until((tmp_path / "held").exists)
        filler = _fill(small_disk, leave_bytes=8 << 20)
        wait_until(lambda: not _is_accepted(client))
        with pytest.raises(StoreFull, match="full"):
            client.submit(tasks.double, 1).result(20)
        (tmp_path / "held.go").touch()
        assert client.result(running, 20) == "held"
        filler.unlink()
        wait_until(lambda: _is_accepted(client))


def test_a_commit_that_finds_no_room_is_made_up_for_when_there_is(small_disk: Path, tmp_path: Path) -> None:
    with Server(num_workers=1, store=small_disk / "jobs.db") as server, server.client() as client:
        holding = client.submit(tasks.hold, str(tmp_path), "held")
        wait_until((tmp_path / "held").exists)
        large = client.submit(tasks.print_bytes, 900_000)  # its output and result find no room
        filler = _fill(small_disk)
        (tmp_path / "held.go").touch()
        wait_until(lambda: client.get_status()["store"]["is_full"], timeout_seconds=20)
        assert not large.done(), "nobody may be told of what is not on disk"
        filler.unlink()
        assert holding.result(20) == "held"
        assert large.result(20)
        assert len(client.logs(large.task_id)) >= 900_000
        wait_until(lambda: not client.get_status()["store"]["is_full"])
        assert _is_accepted(client)
    with Server(num_workers=1, store=small_disk / "jobs.db") as server, server.client() as client:
        assert {task.state for task in client.tasks()} == {"succeeded"}


def test_a_server_that_cannot_keep_its_promises_any_more_ends(tmp_path: Path) -> None:
    server = Server(logging_folder=tmp_path / "logs", num_workers=1, store=tmp_path / "jobs.db")
    with server, server.client() as client:
        kept = client.run_procedure(RunFunction(tasks.double, 4), -1)
        running = client.submit(tasks.hold, str(tmp_path), "held")
        wait_until((tmp_path / "held").exists)
        # As if another server had been started on the file, its lock removed: this one may not write any more.
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("INSERT INTO boots (started_at, pid, version) VALUES (0, 1, '')")
        client.submit(tasks.double, 1)
        wait_until(lambda: server.pid is None, timeout_seconds=30)
        assert not running.done(), "nobody was told what could not be kept"
    assert kept.data == 8
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        (tmp_path / "held.go").touch()
        assert client.result(running.task_id, 30) == "held"
