"""A full or unwritable disk under the logs is no reason to lose a task or its result."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from palpable import Client, Server, current_task
from support import tasks


def test_tasks_run_on_when_the_disk_under_the_logs_is_full(small_disk: Path) -> None:
    with Server(logging_folder=str(small_disk / "logs"), num_workers=1) as server, server.client() as client:
        assert client.run(tasks.double, 1) == 2
        _fill(small_disk)
        _check_that_all_is_well(client)


def test_tasks_run_on_when_they_fill_the_disk_themselves(small_disk: Path) -> None:
    with Server(logging_folder=str(small_disk / "logs"), num_workers=1) as server, server.client() as client:

        def flood(_: object) -> str:
            try:
                for _ in range(300):
                    os.write(1, b"x" * 9_999 + b"\n")
            except OSError as error:
                return f"refused: {error.strerror}"
            return "written"

        assert client.run(flood, None)  # whether the output lives on that disk is the server's affair
        _check_that_all_is_well(client)


def test_a_logging_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises((OSError, ValueError)), Server(logging_folder=str(tmp_path / "a file" / "logs"), num_workers=1):
        pass


def test_a_logging_folder_that_is_taken_away_while_the_server_runs_harms_no_task(tmp_path: Path) -> None:
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=1) as server, server.client() as client:
        shutil.rmtree(tmp_path / "logs")
        _check_that_all_is_well(client)


def _fill(folder: Path) -> None:
    with pytest.raises(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)


def _check_that_all_is_well(client: Client) -> None:
    def speak(text: str) -> str:
        current_task().info(text)
        return text

    assert client.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]
    assert client.map(speak, ["one", "two"]) == ["one", "two"]
    assert client.map(tasks.half, [2, 4]) == [1, 2]
    with pytest.raises(tasks.OddNumber):
        client.run(tasks.half, 3)
