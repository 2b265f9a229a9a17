"""What `write` has returned for survives: a killed process, and a machine that stops at a random moment."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import StoredResult
from support.stored_tasks import all_tasks
from support.wait import wait_until

WRITER = """
import os, sys
from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, StoredResult
from support.stored_tasks import ready, succeeded, task_row

store = SqliteStore(sys.argv[1])
last = store.last_sequence()
numbers = [row.sequence for chunk in store.unfinished() for row, _ in chunk]
while True:
    if not numbers:
        numbers = range(last + 1, last + 1 + (last % 7) * 40 + 1)
        rows = [(task_row(number), b"request %d" % number) for number in numbers]
        store.write(Batch(added=rows, states=[ready(number) for number in numbers]))
        os.write(1, b"added %d\\n" % numbers[-1])
    ends = [succeeded(number, boot=store.boot) for number in numbers]
    results = [(number, StoredResult(b"%d" % number)) for number in numbers]
    store.write(Batch(states=ends, results=results, requests_done=list(numbers)))
    os.write(1, b"finished %d\\n" % numbers[-1])
    last, numbers = numbers[-1], None
"""


class Writer:
    """A process that writes without end, and says after each batch how far it is. It is killed at the end."""

    def __init__(self, path: Path, record: Path) -> None:
        self._record = record
        with open(record, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path)], stdout=output, env={"PYTHONPATH": ":".join(sys.path)}
            )

    def acknowledged(self) -> dict[str, int]:
        """The highest numbers that are said to be written."""
        *lines, _ = self._record.read_text().split("\n")  # the last line may be half there
        return {"added": 0, "finished": 0} | {what: int(number) for what, number in (line.split() for line in lines)}

    def wait_for_progress(self, tasks: int) -> None:
        """Return after that many tasks more."""
        goal = self.acknowledged()["finished"] + tasks
        wait_until(lambda: self.acknowledged()["finished"] >= goal or self._process.poll() is not None, 20)
        assert self._process.poll() is None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold the process still."""
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _check(store: SqliteStore, acknowledged: dict[str, int]) -> None:
    """All that was acknowledged is there, whole; a batch that was not is there as a whole or not at all."""
    tasks = all_tasks(store)
    assert list(tasks) and set(tasks) == set(range(1, max(tasks) + 1))
    assert max(tasks) >= acknowledged["added"]
    assert store.last_sequence() == max(tasks)
    for number, (_, state) in tasks.items():
        is_finished = state.state == "succeeded"
        assert is_finished or number > acknowledged["finished"]
        assert store.request(number) == (None if is_finished else b"request %d" % number)
        assert store.result(number) == (StoredResult(b"%d" % number) if is_finished else None)


def test_a_writer_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    path, rng = tmp_path / "jobs.db", random.Random(4)
    acknowledged = {"added": 0, "finished": 0}
    for turn in range(8):
        writer = Writer(path, tmp_path / f"record {turn}")
        try:
            writer.wait_for_progress(rng.randrange(1, 700))
        finally:
            writer.kill()
        acknowledged = {what: max(number, acknowledged[what]) for what, number in writer.acknowledged().items()}
    store = SqliteStore(path)
    try:
        assert store.boot == 9
        _check(store, acknowledged)
    finally:
        store.close()


def test_files_copied_at_any_moment_hold_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    writer = Writer(path, tmp_path / "record")
    copies = []
    try:
        for turn in range(12):
            writer.wait_for_progress(100)
            with writer.stopped():  # in the middle of whatever it does: that is what a stopped machine leaves on disk
                acknowledged = writer.acknowledged()
                copy = tmp_path / f"copy {turn}"
                copy.mkdir()
                for name in ("jobs.db", "jobs.db-wal"):
                    shutil.copy(path.with_name(name), copy)
            copies.append((copy / path.name, acknowledged))
    finally:
        writer.kill()
    for copy, acknowledged in copies:
        store = SqliteStore(copy)
        try:
            _check(store, acknowledged)
        finally:
            store.close()
