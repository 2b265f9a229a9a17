"""A server that reads a large store: what its tasks ask meanwhile waits, and a stop does not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import palpable
from palpable import Client, RunFunction, Server, ServerStartError
from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, TaskState
from support import tasks
from support.stored_tasks import task_row
from support.wait import wait_until

pytestmark = pytest.mark.slow

MANY, CHILDREN = 60_000, 60


def _server(folder: Path, **settings: Any) -> Server:
    return Server(num_workers=2, store=folder / "jobs.db", **settings)


def _submit(client: Client, function: Any, *arguments: Any) -> str:
    return client.run_procedure(RunFunction(function, *arguments), waiting_seconds=0.001).task_id


def _kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.close()


def _add_many(folder: Path) -> None:
    """Add tasks that are not due for long. They are read after what ran, and before what has ended."""
    store = SqliteStore(str(folder / "jobs.db"))
    first = store.last_sequence() + 1
    numbers = range(first, first + MANY)
    store.write(
        Batch(
            added=[(task_row(number), b"request") for number in numbers],
            states=[TaskState(sequence=number, state="scheduled", due_at=4e9) for number in numbers],
        )
    )
    store.close()


def _start(server: Server, errors: list[BaseException]) -> None:
    try:
        server.start()
    except ServerStartError as error:
        errors.append(error)


@pytest.mark.parametrize("way", ["SIGTERM", "stop"])
def test_a_server_told_to_stop_while_it_reads_its_store_stops_and_leaves_it_as_it_was(tmp_path: Path, way: str) -> None:
    def parent(folder: str) -> str:
        messenger = palpable.current_task()
        tasks.announce(folder, f"parent-{messenger.attempt}")
        if messenger.attempt == 1:
            names = [f"child-{number}" for number in range(CHILDREN)]
            messenger.options(priority=-5).map(lambda name: tasks.block(folder, name), names)
        tasks.wait_for_file(Path(folder) / "go")
        return "done"

    with _server(tmp_path) as server, server.client() as client:
        task_id = _submit(client, parent, str(tmp_path))
        wait_until(lambda: all((tmp_path / f"child-{number}").exists() for number in range(2)))
        _kill(server)
    _add_many(tmp_path)
    for path in tmp_path.glob("child-*"):
        path.unlink()

    server, errors = _server(tmp_path), []  # type: tuple[Server, list[BaseException]]
    thread = threading.Thread(target=_start, args=(server, errors))
    thread.start()
    wait_until((tmp_path / "parent-2").exists)
    pid = server.pid
    assert pid is not None
    if way == "SIGTERM":
        os.kill(pid, signal.SIGTERM)
    else:
        server.stop()
    thread.join()
    assert "told to stop before it listened" in str(errors[0])
    server.close()

    (tmp_path / "go").touch()
    with _server(tmp_path) as server, server.client() as client:
        assert client.result(task_id, 30) == "done"
        found = server.recovered
        assert (found["interrupted"], found["scheduled"]) == (1, MANY)
        # Those that ran, or were about to, were cancelled by the server before.
        assert found["cancelled"] + found["finished"] == CHILDREN and found["cancelled"] > CHILDREN // 2
        assert not list(tmp_path.glob("child-*")), "a sub-task of an attempt that was interrupted has run"


@pytest.mark.parametrize("ends_first", [False, True])
def test_a_task_submitted_by_its_key_while_the_store_is_read_is_the_one_that_is_stored(
    tmp_path: Path, ends_first: bool
) -> None:
    def submit_by_key(folder: str) -> Any:
        messenger = palpable.current_task()
        tasks.announce(folder, f"outer-{messenger.attempt}")
        if messenger.attempt == 1:
            tasks.block(folder)
        future = messenger.options(idempotency_key="the key").submit(tasks.append_line, f"{folder}/runs", "again")
        return None if ends_first else future.result()

    with _server(tmp_path) as server, server.client() as client:
        keyed = client.options(idempotency_key="the key")
        assert keyed.submit(tasks.append_line, str(tmp_path / "runs"), "first").result() == "first"
        task_id = _submit(client, submit_by_key, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
        _kill(server)
    _add_many(tmp_path)

    with _server(tmp_path) as server, server.client() as client:
        assert client.result(task_id, 30) == (None if ends_first else "first")
        again = client.options(idempotency_key="the key").submit(tasks.append_line, str(tmp_path / "runs"), "x")
        assert again.result(timeout=30) == "first"
    assert (tmp_path / "runs").read_text().split() == ["first"]
