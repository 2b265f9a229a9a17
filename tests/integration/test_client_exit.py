"""A program that ends: it waits for nothing, and what it submitted is submitted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from palpable import Client, Server
from support.scripts import run_script
from support.wait import wait_until

PROGRAM = """
    import time
    from palpable import Client

    def note(number):
        with open({path!r}, "a") as file:
            file.write(f"{{number}} ")

    client = Client()
    for number in range(50):
        client.submit(note, number)
    client.submit(time.sleep, 600).add_done_callback(print)
"""


def test_a_program_that_ends_waits_for_nothing_and_loses_no_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "noted"
    with Server(tmp_path / "logs", num_workers=2, authkey=b"of this test") as server, server.client() as client:
        monkeypatch.setenv("PALPABLE_URL", f"unix://{server.address}")
        monkeypatch.setenv("PALPABLE_AUTHKEY", "of this test")
        started = time.monotonic()
        assert run_script(tmp_path, PROGRAM.format(path=str(noted))) == ""
        assert time.monotonic() - started < 10
        wait_until(lambda: noted.exists() and len(noted.read_text().split()) == 50, timeout_seconds=20)
        (sleeping,) = client.tasks(state="running")
        assert client.cancel(sleeping.task_id)


def test_a_client_finds_its_server_by_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_URL", f"unix://{server.address}")
    with Client(authkey=server.authkey) as client:
        assert client.run(abs, -3) == 3
