"""`serve --store`, `stop`, `drain`: the end of a server, and what is there after it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from palpable import Client
from support.command_line import Serve, answer, first_line, refusal, remove_folders_of_the_killed, started
from support.wait import wait_until


def _held(tmp_path: Path, name: str = "holding") -> str:
    """Have a task run that ends when its file `.go` exists; return its id once it runs."""
    with Client() as client:
        task_id = answer("run", "--detach", "support.tasks:hold", "--args", json.dumps([str(tmp_path), name])).strip()
        wait_until((tmp_path / name).exists)
        assert client.tasks("running")
    return task_id


# --- serve --store ------------------------------------------------------------------------------------------------


def test_tasks_are_kept_in_the_state_folder_which_is_for_this_user_alone(
    default_server: subprocess.Popen[str], tmp_path: Path
) -> None:
    store = tmp_path / "state" / "palpable" / "jobs.db"
    assert first_line(default_server) == f"Tasks and results are kept in {store}.\n"
    assert stat.S_IMODE(store.stat().st_mode) == 0o600 and stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert str(store) in answer("status")
    assert json.loads(answer("status", "--json"))["store"]["path"] == str(store)


def test_a_server_that_was_killed_loses_nothing_and_says_what_it_recovered(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    done = answer("run", "--detach", "math:sqrt", "--args", "[4]").strip()
    assert answer("wait", done)
    running = _held(tmp_path)
    later = answer("run", "--detach", "--delay", "1h", "math:sqrt", "--args", "[9]").strip()
    server.kill()
    server.wait()
    remove_folders_of_the_killed()
    (tmp_path / "holding.go").touch()
    line = first_line(serve())
    assert line.endswith("Recovered: 1 that ran and run again, 1 to run later, 1 finished.\n")
    assert answer("wait", running) == f"{running}: succeeded\n"
    assert json.loads(answer("show", "--json", done))["result"] == 2.0
    assert json.loads(answer("show", "--json", running))["attempt"] == 2
    assert json.loads(answer("show", "--json", later))["state"] == "scheduled"


def test_without_a_store_nothing_is_kept(serve: Serve, tmp_path: Path) -> None:
    facts = json.loads(serve("--store", "none", "--json").says)  # type: ignore[attr-defined]
    assert facts["store"] is None
    assert "store       none" in answer("status")
    assert not (tmp_path / "state").exists()


def test_a_store_has_one_server_at_a_time(serve: Serve, tmp_path: Path) -> None:
    server = serve("--store", tmp_path / "mine.db")
    line = refusal(1, "serve", "--store", tmp_path / "mine.db", "--socket", tmp_path / "other.sock")
    assert f"pid {server.pid}" in line and "mine.db" in line


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but longer than its header would be\n" * 100)
    assert str(tmp_path / "text") in refusal(1, "serve", "--store", tmp_path / "text")
    assert "nowhere" in refusal(1, "serve", "--store", tmp_path / "nowhere" / "jobs.db")


# --- stop ---------------------------------------------------------------------------------------------------------


def test_stop_hands_back_what_runs_and_the_next_server_runs_it(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    task_id = _held(tmp_path)
    answer("stop")
    assert server.wait(timeout=20) == 0
    (tmp_path / "holding.go").touch()
    assert "Recovered: 1 " in first_line(serve())
    assert answer("wait", task_id) == f"{task_id}: succeeded\n"


def test_stop_lets_what_runs_end_within_the_time_it_is_given(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    task_id = _held(tmp_path)
    with started("stop", "--drain-seconds", 60) as process:
        wait_until(lambda: json.loads(answer("status", "--json"))["is_draining"])
        assert "draining    1 still running" in answer("status")
        (tmp_path / "holding.go").touch()
        assert "has stopped" in process.communicate(timeout=20)[0]
    assert server.wait(timeout=20) == 0
    serve()
    assert answer("wait", task_id) == f"{task_id}: succeeded\n"


def test_stop_drains_as_serve_was_told_and_can_be_hurried(serve: Serve, tmp_path: Path) -> None:
    server = serve("--drain-seconds", 600)
    _held(tmp_path)
    with started("stop") as process:
        wait_until(lambda: json.loads(answer("status", "--json"))["is_draining"])
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=20)[1]
        assert process.returncode == 130 and "palpable stop --now" in errors
    assert server.poll() is None
    answer("stop", "--now")
    assert server.wait(timeout=20) == 0


def test_sigterm_drains_and_a_second_one_hurries(serve: Serve, tmp_path: Path) -> None:
    server = serve("--drain-seconds", 600)
    _held(tmp_path)
    server.terminate()
    wait_until(lambda: json.loads(answer("status", "--json"))["is_draining"])
    server.terminate()
    assert server.wait(timeout=20) == 0


# --- drain --------------------------------------------------------------------------------------------------------


def test_a_drained_server_finishes_what_runs_and_goes_on_when_told(
    default_server: subprocess.Popen[str], tmp_path: Path
) -> None:
    running = _held(tmp_path)
    assert answer("drain") == "The server drains: 1 task runs to the end.\n"
    assert "palpable drain --off" in refusal(1, "drain", "--wait", "--timeout", "50ms")
    with started("drain", "--wait", "--json") as process:
        (tmp_path / "holding.go").touch()
        assert json.loads(process.communicate(timeout=20)[0]) == {"is_draining": True, "running": 0}
    assert answer("wait", running) == f"{running}: succeeded\n"
    line = refusal(1, "run", "math:sqrt", "--args", "[4]")
    assert "accepts nothing new" in line and "palpable drain --off" in line
    assert answer("drain", "--off") == "The server accepts and starts tasks again.\n"
    assert answer("run", "math:sqrt", "--args", "[4]") == "2.0\n"


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    line = refusal(1, "serve")
    assert str(tmp_path / "file") in line and "--store none" in line
    assert not os.path.exists(tmp_path / "home" / "server.sock")
