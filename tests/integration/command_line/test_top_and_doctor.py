"""`top` and `doctor`: seeing what a server does, and whether it does it well."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palpable import Client
from support import tasks
from support.command_line import PALPABLE, answer, palpable
from support.wait import wait_until

# --- top ----------------------------------------------------------------------------------------------------------


def test_one_page_shows_workers_tasks_queue_and_what_ended(client: Client, tmp_path: Path) -> None:
    client.run(tasks.double, 1)
    held = [client.submit(tasks.hold, str(tmp_path), f"holding-{number}") for number in range(2)]
    wait_until(lambda: all((tmp_path / f"holding-{number}").exists() for number in range(2)))
    queued = client.submit(tasks.double, 1)
    wait_until(lambda: len(client.tasks()) == 4)
    page = answer("top", "--once")
    assert "workers     2 of 2 busy" in page and "2 running, 1 ready" in page and "1 succeeded since the start" in page
    assert re.search(rf"^Worker-1 +{held[0].task_id} +hold +running .*%.* MB", page, re.MULTILINE)
    assert page.index("QUEUED") < page.index(queued.task_id) < page.index("ENDED")
    seen = json.loads(answer("top", "--json"))
    assert len(seen["running"]) == 2 and len(seen["queued"]) == 1 and seen["throughput"] > 0
    for number in range(2):
        (tmp_path / f"holding-{number}.go").touch()
    queued.result(timeout=20)


class _Terminal:
    """A terminal of our own, with a program in it."""

    def __init__(self, leader: int, follower: int, process: subprocess.Popen[bytes]) -> None:
        self.leader, self.follower, self.process = leader, follower, process
        self.shown = ""

    def read(self) -> None:
        """Take what was drawn, if anything was."""
        ready, _, _ = select.select([self.leader], [], [], 0.05)
        if ready:
            self.shown += os.read(self.leader, 1 << 16).decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Return once this text was drawn."""

        def is_drawn() -> bool:
            self.read()
            return text in self.shown

        wait_until(is_drawn, 20)
        self.shown = self.shown.rpartition(text)[2]

    def settings(self) -> list[object]:
        """How the terminal is set."""
        return termios.tcgetattr(self.follower)


@contextmanager
def _top(*options: object) -> Iterator[_Terminal]:
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 30, 110, 0, 0))
    command = [*PALPABLE, "top", *map(str, options)]
    process = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    try:
        yield _Terminal(leader, follower, process)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(follower)


ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
"""What takes the whole screen, and what gives it back."""


@pytest.mark.parametrize("ending", ["q", "Ctrl-C", "SIGTERM"])
def test_the_live_page_goes_on_until_it_is_ended_and_leaves_the_terminal_as_it_was(
    ending: str, client: Client, tmp_path: Path
) -> None:
    with _top("--interval", 0.1) as terminal:
        before = terminal.settings()
        terminal.wait_for(ENTERED)
        terminal.wait_for("0 of 2 busy")
        assert terminal.settings() != before
        held = client.submit(tasks.hold, str(tmp_path))
        terminal.wait_for("1 of 2 busy")
        (tmp_path / "holding.go").touch()
        held.result(timeout=20)
        terminal.wait_for("1 succeeded")
        if ending == "q":
            os.write(terminal.leader, b"q")
        else:
            terminal.process.send_signal(signal.SIGINT if ending == "Ctrl-C" else signal.SIGTERM)
        terminal.wait_for(LEFT)
        code = terminal.process.wait(timeout=20)
        assert code == {"q": 0, "Ctrl-C": 130, "SIGTERM": 143}[ending]
        assert terminal.settings() == before


def test_the_live_page_outlives_the_server(default_server: subprocess.Popen[str]) -> None:
    with _top("--interval", 0.1) as terminal:
        terminal.wait_for("0 of 2 busy")
        answer("stop")
        terminal.wait_for("No answer, trying again")
        os.write(terminal.leader, b"q")
        assert terminal.process.wait(timeout=20) == 0


# --- doctor -------------------------------------------------------------------------------------------------------


def _checkup(code: int, *options: object) -> dict[str, dict[str, str]]:
    """What the doctor found, by the name of the check."""
    result = palpable("doctor", "--json", *options)
    assert (result.returncode, result.stderr) == (code, ""), result
    found = json.loads(result.stdout)
    assert found["is_well"] is (code == 0)
    return {check["name"]: check for check in found["checks"]}


def test_a_server_that_works_is_well(client: Client) -> None:
    checks = _checkup(0)
    names = ["runtime folder", "key", "connection", "version", "server", "open files", "task", "fresh process"]
    assert {*names, "output", "cancel", "disk of the store", "disk of log files"} == set(checks)
    assert {checks[name]["state"] for name in names} == {"ok"}
    assert "with its child" in checks["cancel"]["found"]
    assert [task.outcome for task in client.tasks(tags="doctor")] == ["cancelled", "succeeded", "succeeded"]
    shown = answer("doctor")
    assert shown.endswith("\nAll is well.\n") and "ok      fresh process" in shown


def test_what_is_wrong_is_said_with_what_to_do(client: Client, home: Path) -> None:
    home.chmod(0o755)
    assert _checkup(0)["runtime folder"]["advice"] == f"Run: chmod 700 {home}"
    answer("drain")
    checks = _checkup(1)
    assert checks["server"]["advice"] == "Run: palpable drain --off"
    assert checks["task"]["state"] == "failed" and "refuses" in checks["task"]["found"]
    home.chmod(0o700)
    (home / "authkey").chmod(0o644)
    checks = _checkup(1)
    assert "chmod 600" in checks["key"]["found"] and "connection" in checks
    result = palpable("doctor")
    assert result.returncode == 1 and "checks failed: key, connection" in result.stdout


def test_without_a_server_the_doctor_says_how_to_start_one(home: Path) -> None:
    checks = _checkup(1)
    assert "palpable serve" in checks["runtime folder"]["advice"]
    assert "palpable serve" in checks["connection"]["found"]
