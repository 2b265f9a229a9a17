"""A client that dies leaves its tasks running, unless they were submitted to end with it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from palpable import Client, Server
from support import tasks
from support.processes import is_alive, wait_gone
from support.scripts import started_script
from support.wait import wait_until

SUBMITTER = """
    import os, time
    from palpable import Client
    from support import tasks

    client = Client(open("address").read(), "AF_UNIX", bytes.fromhex(open("key").read()))
    future = client.options(**eval(open("options").read())).submit(tasks.hold, os.getcwd())
    print(future.task_id, flush=True)
    tasks.wait_for_file("holding")
    print("holding", flush=True)
    time.sleep(1000)
"""


def _submit_and_die(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]) -> str:
    """Let another process submit a task that holds, kill that process, return the id of the task."""
    monkeypatch.setenv("PYTHONPATH", str(Path(tasks.__file__).parents[1]))
    (folder / "address").write_text(str(server.address))
    (folder / "key").write_text(server.authkey.hex())
    (folder / "options").write_text(repr(options))
    with started_script(folder, SUBMITTER) as process:
        assert process.stdout is not None
        task_id = process.stdout.readline().strip()
        assert process.stdout.readline() == "holding\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
    return task_id


def test_the_tasks_of_a_client_that_died_go_on(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = _submit_and_die(server, tmp_path, monkeypatch, {})
    assert client.run(tasks.double, 2) == 4
    assert is_alive(int((tmp_path / "holding").read_text()))
    (tmp_path / "holding.go").touch()
    assert client.result(task_id, timeout_seconds=20) == "holding"


def test_tasks_submitted_to_end_with_their_client_do(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = _submit_and_die(server, tmp_path, monkeypatch, {"ends_with_client": True})
    wait_gone([int((tmp_path / "holding").read_text())])
    wait_until(lambda: [task.state for task in client.tasks() if task.task_id == task_id] == ["cancelled"])


def test_tasks_submitted_to_end_with_their_client_end_when_it_is_closed(server: Server, tmp_path: Path) -> None:
    with server.client() as brief:
        brief.options(ends_with_client=True).submit(tasks.block, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
    wait_gone([int((tmp_path / "blocked").read_text())])


def test_a_result_that_its_client_did_not_live_to_see_can_be_had_by_another(
    server: Server, client: Client, tmp_path: Path
) -> None:
    with server.client() as brief:
        task_id = brief.submit(tasks.hold, str(tmp_path)).task_id
        wait_until((tmp_path / "holding").exists)
    (tmp_path / "holding.go").touch()
    assert client.result(task_id, timeout_seconds=20) == "holding"
    assert client.query_result(task_id).data == "holding"
    assert client.query_result(task_id) is None


def test_a_client_that_dies_while_it_follows_a_log_harms_nobody(server: Server, client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    with server.client() as brief:
        assert "before" in next(brief.logs(future.task_id, follow=True))
    (tmp_path / "holding.go").touch()
    assert future.result(timeout=20) == "done"
