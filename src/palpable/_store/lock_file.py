"""A file whose lock says that a server uses the store beside it."""

from __future__ import annotations

import contextlib
import fcntl
import os

from palpable._store.store import StoreBroken


class LockFile:
    """Held from the making to `close`, or to the end of the process in whatever way.

    The file itself stays: if it were removed, a server that has just opened it would lock a file that no later one
    sees.
    """

    def __init__(self, path: str, guarded: str) -> None:
        """Take the lock.

        Args:
            path: of the lock file.
            guarded: what it stands for, in messages.

        Raises:
            StoreBroken: another server holds it, or the file can't be made.
        """
        self._path = path
        self._is_new = not os.path.lexists(path)
        try:
            # Python opens with O_CLOEXEC, so zygotes and tasks, which are executed, do not keep the lock when we end.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreBroken(
                f"{guarded} can't be used as a store: its lock file {path} can't be opened ({error.strerror}). "
                "The folder must exist, and this user must be able to write to it."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                os.close(self._descriptor)
                raise StoreBroken(
                    f"{guarded} can't be used as a store: its lock file {path} can't be locked ({error.strerror}). "
                    "Is it on a network disk? Use a local one."
                ) from error
            owner = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StoreBroken(
                f"{guarded} is used by the server with pid {owner or 'unknown'}. One server at a time: "
                "stop that one, connect to it as a client, or give this one another file."
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, only the pid is missing
            os.fchmod(self._descriptor, 0o600)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def withdraw(self) -> None:
        """Let go of the lock when nothing came of it; the file goes if it was not there before.

        If another server opened the file just before, it may hold the lock of a file that is gone. Both had to begin at
        the same moment, and a store refuses writes of all but the newest boot.
        """
        if self._is_new:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self.close()

    def close(self) -> None:
        """Let go of the lock. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
