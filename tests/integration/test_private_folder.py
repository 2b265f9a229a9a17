"""The private folder of a server goes with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from palpable import Server
from palpable.servants.private_folder import PrivateFolder, remove_abandoned
from support import tasks
from support.wait import wait_until

PROGRAM = """
import os, sys
from palpable import Server

server = Server(num_workers=1).start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def _folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("palpable-*"))


def test_the_next_server_removes_what_one_left_that_was_killed_with_its_owner() -> None:
    before = _folders()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        (left,) = _folders() - before
        os.kill(pid, signal.SIGSTOP)  # so that it can't clear up when its owner is gone
        owner.kill()
        owner.wait()
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1])
    assert left.exists()
    with Server(num_workers=1) as server, server.client() as client:
        assert not left.exists()
        assert client.run(tasks.double, 2) == 4
    assert _folders() == before


def test_a_folder_in_use_is_left_alone() -> None:
    with Server(num_workers=1) as server, server.client() as client:
        held = PrivateFolder()
        remove_abandoned()
        assert Path(held.path).exists()
        held.remove()
        assert not Path(held.path).exists()
        assert client.run(tasks.double, 2) == 4


def test_what_only_looks_like_one_is_left_alone(tmp_path: Path) -> None:
    other = Path(tempfile.mkdtemp(prefix="palpable-"))
    try:
        remove_abandoned()
        assert other.exists()
    finally:
        other.rmdir()
