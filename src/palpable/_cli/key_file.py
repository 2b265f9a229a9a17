"""The key of a server that is started from the command line."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from palpable._connection.authkey import read_authkey_file, write_authkey_file


class KeyFile:
    """A file with a key, in use from the making to `close` or `withdraw`, or to the end of the process.

    If there is no such file, it is made, with a new key that only this user can read. Of several processes that do so
    at once, one makes the key and all have it.

    Who uses it holds a shared lock on it. A server that came to nothing removes the key that it made, and needs the
    lock for itself alone for that: another server may use the key by now.

    Attributes:
        key: what is in it.
    """

    def __init__(self, path: Path) -> None:
        """Read or make it.

        Raises:
            AuthenticationFailed: there is a key file, and others may read it, or it is not one.
            OSError: it can't be read, or made.
        """
        self._path = path
        while True:
            self._is_made = _make_if_missing(path)
            try:
                # Not inherited by what is executed, so that it is not in use longer than we are.
                self._descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                if path.is_symlink():
                    raise  # it leads nowhere
                continue  # removed meanwhile, by the one that had made it
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            except OSError:
                self._is_made = False  # a disk without locks: it is not known who uses it, so it stays
            if self._is_still_there():
                break
            os.close(self._descriptor)  # locked after it was removed: nobody will see that one any more
        try:
            self.key = read_authkey_file(path)
        except BaseException:
            self.close()
            raise

    def _is_still_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def withdraw(self) -> None:
        """Remove the file, if it was made here and nobody else uses it; let go of it."""
        if self._descriptor >= 0 and self._is_made:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_still_there():
                    self._path.unlink()
            except OSError:
                pass  # in use, or in a folder that lets nothing be removed any more
        self.close()

    def close(self) -> None:
        """Let go of the file, and leave it. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _make_if_missing(path: Path) -> bool:
    """Make the file, at once with its key in it, if there is none; return whether it was made here."""
    if os.path.lexists(path):
        return False
    complete = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    write_authkey_file(complete)
    try:
        # Unlike a rename, this fails if somebody else was faster. That one may serve with its key by now.
        os.link(complete, path)
    except FileExistsError:
        return False
    finally:
        complete.unlink()
    return True
