"""Opening the file of a store: made if it is missing, checked, and brought to the newest schema."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator
from importlib import resources
from typing import Final

from palpable._store.migrations import SCHEMA_VERSION, migrate, run_script
from palpable._store.store import StoreBroken

APPLICATION_ID: Final = 0x50414C50
"""Marks a database as a store of Palpable: "PALP"."""
PAGE_BYTES: Final = 4096
CACHE_KIB: Final = 8 * 1024
CHECKED_BYTES: Final = 32 * 1024 * 1024
"""A file up to this size is checked as a whole when it is opened: that takes 7 ms per MB (1.4 s for 189 MB)."""
BUSY_TIMEOUT_SECONDS: Final = 60.0
"""For another program that writes to the file: somebody's sqlite3 shell. We wait rather than fail."""
CHECKPOINT_PAGES: Final = 1000
CACHED_STATEMENTS: Final = 200

_OLDEST_SQLITE: Final = (3, 33, 0)  # UPDATE FROM


def open_writer(path: str) -> sqlite3.Connection:
    """Return the connection that writes. The file is private to its owner from the moment it exists.

    Raises:
        sqlite3.Error, OSError, StoreBroken: it can't be opened.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreBroken(f"this Python has SQLite {sqlite3.sqlite_version}; a store needs 3.33 or newer.")
    _make_file(path)
    with _connected(path) as connection:
        _identify(connection, path)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA secure_delete = OFF")  # the whole file is private, and overwriting costs writes
        return connection


def open_reader(path: str) -> sqlite3.Connection:
    """Return a connection that reads beside the writer."""
    with _connected(path) as connection:
        connection.execute("PRAGMA query_only = ON")
        return connection


def begin_boot(connection: sqlite3.Connection) -> int:
    """Note this start of a server, and return its number."""
    from palpable import __version__

    cursor = connection.execute(
        "INSERT INTO boots (started_at, pid, version) VALUES (?, ?, ?)", (time.time(), os.getpid(), __version__)
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


@contextlib.contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    """Give a connection that is to be set up, and close it if that fails."""
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,  # transactions begin and end where we say so
        check_same_thread=False,  # opened by the thread that starts the server, then used by one other at a time
        cached_statements=CACHED_STATEMENTS,
    )
    try:
        connection.execute("PRAGMA cell_size_check = ON")  # finds a damaged page when it is read, not later
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        yield connection
    except BaseException:
        connection.close()
        raise


def _make_file(path: str) -> None:
    """Make the file if it is missing, with mode 0600; SQLite gives those beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StoreBroken(f"{path} is not a file. Give another path.") from None


def _make_private(path: str) -> None:
    """Narrow the mode of a file that is a store: a backup that was put back may have any.

    Who can write to it can have code run, who can read it sees all.
    """
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if os.stat(name).st_mode & 0o077:
                os.chmod(name, 0o600)


def _identify(connection: sqlite3.Connection, path: str) -> None:
    """Make the schema in an empty file, migrate an older one, refuse what is not ours or newer than we are."""
    application_id, version, tables = (
        connection.execute(sql).fetchone()[0]
        for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if not tables and not version and not application_id:
        _make_private(path)
        _make_schema(connection, path)
    elif application_id != APPLICATION_ID:
        raise StoreBroken(f"{path} is an SQLite database, but not a store of Palpable. Give another path.")
    elif version > SCHEMA_VERSION:
        raise StoreBroken(
            f"the store {path} was written by a newer Palpable: its schema has version {version}, "
            f"this one knows {SCHEMA_VERSION}. Install that Palpable, or give another path."
        )
    elif version < 1:
        raise StoreBroken(
            f"the store {path} is damaged (its schema has version {version}). Keep a copy, then restore a backup."
        )
    else:
        _make_private(path)
        _use_wal(connection, path)
        _check_pages(connection, path)
        migrate(connection, version)


def _check_pages(connection: sqlite3.Connection, path: str) -> None:
    """Look for damage, if the file is small; in a large one it is found when the damaged page is read."""
    if os.stat(path).st_size <= CHECKED_BYTES:
        (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise StoreBroken(f"the store {path} is damaged ({finding}). Keep a copy, then restore a backup.")


def _make_schema(connection: sqlite3.Connection, path: str) -> None:
    """Make all tables in one transaction: after a crash the file is still empty, and made again."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != 2:
        connection.execute("VACUUM")
    _use_wal(connection, path)
    schema = resources.files(__package__).joinpath("schema.sql").read_text()
    run_script(
        connection,
        f"""{schema}
        INSERT INTO meta VALUES ('store_id', '{secrets.token_hex(8)}'), ('last_sequence', 0);
        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = {SCHEMA_VERSION};""",
    )


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreBroken(f"{path} is on a file system without shared memory (a network disk?). Use a local disk.")
