"""What a test could leave behind: processes, threads, file descriptors, files in the folder for temporary files."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from support import shared_servers
from support.processes import descendants, describe


class Belongings(NamedTuple):
    """What this process holds at one moment."""

    pids: frozenset[int]
    threads: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[str]


def take_stock(folders: list[Path]) -> Belongings:
    """Return what is held now: `folders` and the folder for temporary files are searched for files.

    What belongs to servers that are shared by tests is left out.
    """
    shared = shared_servers.pids()
    descriptors = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    theirs = shared_servers.folders()
    files = {
        str(path)
        for path in Path(tempfile.gettempdir()).rglob("*")
        if not any(folder in path.parents for folder in theirs)
    }
    files |= {str(path) for folder in folders for path in folder.rglob("*") if path.is_socket()}
    threads = frozenset(thread.ident or 0 for thread in threading.enumerate())
    own = descendants() - shared - shared_servers.pids()  # one that was forked meanwhile too
    return Belongings(frozenset(own), threads, frozenset(descriptors), frozenset(files))


def find_leaks(before: Belongings, folders: list[Path], timeout_seconds: float = 5.0) -> list[str]:
    """Return a line for each thing that is held now and was not before; what is still going away is waited for."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        leaks = _compare(before, take_stock(folders))
        if not leaks or time.monotonic() > deadline:
            return leaks
        gc.collect()
        time.sleep(0.02)


def kill_leaked(before: Belongings) -> None:
    """Kill the processes that are left behind, so that they trouble no later test."""
    for pid in descendants() - before.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _compare(before: Belongings, after: Belongings) -> list[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        *(f"process {describe(pid)}" for pid in sorted(after.pids - before.pids)),
        *(f"thread {names.get(ident, ident)}" for ident in sorted(after.threads - before.threads)),
        *(f"file descriptor {number}: {target}" for number, target in sorted(after.descriptors - before.descriptors)),
        *(f"file {path}" for path in sorted(after.files - before.files)),
    ]
