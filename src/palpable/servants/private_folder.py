"""The folder that is made for one server alone: spool files, and whatever was given no place of its own.

It goes with its server. One that was killed together with its owner leaves it behind; the next server of the same user
removes it then. Whether somebody still uses it says a lock, which the kernel gives back with the last process that
holds it: the owner, and the server process that it started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

PREFIX = "palpable-"
LOCK_NAME = "lock"


class PrivateFolder:
    """A new folder, which only this user can read.

    Attributes:
        path: of the folder.
        lock_fd: what the server process must hold too.
        remove: removes the folder; does nothing in a child that the owner forked. Called at the end of the owner, too.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.path, self.lock_fd = _make_locked()
        self.remove = weakref.finalize(self, _remove, self.path, self.lock_fd, os.getpid())


def _make_locked() -> tuple[str, int]:
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX)
        lock_fd = os.open(os.path.join(path, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Who against whom: another server that clears up, and finds our lock file before we hold the lock. Then it has
        # the lock, or had it and removed the folder; we make another one.
        if _try_lock(lock_fd) and os.path.exists(path):
            return path, lock_fd
        os.close(lock_fd)


def remove_abandoned() -> None:
    """Remove the folders of this user's servers that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock_fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # no folder of a server, another user's, or gone by now
            continue
        try:
            if os.fstat(lock_fd).st_uid == os.geteuid() and _try_lock(lock_fd):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock_fd)


def _try_lock(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(path: str, lock_fd: int, owner_pid: int) -> None:
    if os.getpid() == owner_pid:
        shutil.rmtree(path, ignore_errors=True)
    os.close(lock_fd)
