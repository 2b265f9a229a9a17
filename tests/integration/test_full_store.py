"""A full disk under the store: new tasks are refused with a clear error, what runs ends, and it goes on with room."""

from __future__ import annotations

import os
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
