"""What some contenders need beside them: a Redis server, and the commands that run their workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contender import NotAvailable
from benchmarks.process_tree import tree

START_SECONDS = 10
GRACE_SECONDS = 0.3
STOP_SECONDS = 5


class Command:
    """A program of this environment's `bin` folder, run until it is stopped. Its output goes to the log."""

    def __init__(self, program: str, *arguments: str) -> None:
        path = Path(sys.executable).parent / program
        if not path.exists():
            raise NotAvailable(f"the program {program} is not in this environment")
        self.process = subprocess.Popen([str(path), *arguments], stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """Ask it to end, and soon end it with all its processes: some take seconds, which nobody measures."""
        started = tree([self.process.pid])
        self.process.terminate()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(STOP_SECONDS)


class Redis:
    """A Redis server of its own for each measurement: on a free loopback port, with persistence off."""

    def start(self) -> None:
        """Start it, and put its address into the environment as `BENCHMARK_REDIS_URL`, where workers find it."""
        program = shutil.which("redis-server")
        if program is None:
            raise NotAvailable("there is no redis-server on this machine")
        self.folder = tempfile.mkdtemp(prefix="bench-")
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.process = subprocess.Popen(
            [program, *("--port", str(port)), *("--bind", "127.0.0.1"), *("--save", ""), *("--appendonly", "no")],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_until_listening(port)
        os.environ["BENCHMARK_REDIS_URL"] = self.url

    def stop(self) -> None:
        if hasattr(self, "process"):
            self.process.terminate()
            self.process.wait(STOP_SECONDS)
            shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise NotAvailable(f"redis-server did not listen within {START_SECONDS} s") from None
            time.sleep(0.02)
