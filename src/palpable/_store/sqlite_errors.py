"""What SQLite's errors mean for a server: no room, or broken."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from typing import Final

from palpable._store.store import StoreBroken, StoreFull

PROBE_BYTES: Final = 256 * 1024

_PRIMARY_CODE: Final = 0xFF
_ADVICE: Final = {
    "SQLITE_NOTADB": "it is not an SQLite database. Give another path, or move the file away.",
    "SQLITE_CORRUPT": "it is damaged. Keep a copy, then restore a backup, or try `sqlite3 FILE .recover`.",
    "SQLITE_READONLY": "it can't be written to. Check permissions of file and folder, and how the disk is mounted.",
    "SQLITE_CANTOPEN": "it can't be opened. Check that it is a file, and the permissions of it and its folder.",
    "SQLITE_PERM": "it can't be opened. Check the permissions of the file and its folder.",
    "SQLITE_IOERR": "the disk reported an error. Check it (the system log may say more), then start the server again.",
    "SQLITE_BUSY": "another program keeps it locked. Close what has it open (an sqlite3 shell in a transaction?).",
    "SQLITE_CONSTRAINT": "what should be written contradicts its own rules. This is a bug of Palpable.",
}


def translated(error: sqlite3.Error, path: str) -> StoreFull | StoreBroken:
    """Return the error to raise instead."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return StoreBroken(f"the store {path} failed: {error}")
    name = _PRIMARY_NAMES.get(code & _PRIMARY_CODE, "")
    # To SQLite a quota or a limit of file sizes is an input-output error, and so is a full disk under its shared
    # memory.
    if name == "SQLITE_FULL" or (name == "SQLITE_IOERR" and not has_room(path)):
        return StoreFull(f"there is no room for the store {path}: make room on its disk (or raise the quota).")
    advice = _ADVICE.get(name, "see the SQLite error.")
    return StoreBroken(f"the store {path} failed: {advice} [{error.sqlite_errorname}: {error}]")


def has_room(path: str) -> bool:
    """Return False if a file beside the store, somewhat longer than it, can't be written for lack of room."""
    try:
        length = max(os.stat(name).st_size for name in (path, f"{path}-wal") if os.path.exists(name))
        with tempfile.TemporaryFile(dir=os.path.dirname(path), buffering=0) as file:
            file.seek(length)  # takes no room, but counts against a limit of the length
            file.write(bytes(PROBE_BYTES))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return True


_PRIMARY_NAMES: Final = {getattr(sqlite3, name): name for name in [*_ADVICE, "SQLITE_FULL"]}
