"""The store in an SQLite file: write-ahead log, a commit with fsync for every batch."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from palpable._store import sqlite_opening
from palpable._store.function_sweep import FunctionSweep
from palpable._store.lock_file import LockFile
from palpable._store.sqlite_errors import translated
from palpable._store.sqlite_reading import FINISHED, UNFINISHED, read_tasks
from palpable._store.sqlite_writing import check_boot, result_checksum, write_changes
from palpable._store.store import Batch, StoreBroken, StoredResult, StoreFull, TaskRow, TaskState

SPARE_BYTES: Final = 8 * 1024 * 1024
"""Room that is kept in the file when tasks go: the next ones will fill it, and growing costs more than overwriting."""
LOG_BYTES: Final = 8 * 1024 * 1024
"""A write-ahead log larger than this is emptied when there is time."""
VACUUM_PAGES: Final = 128


class SqliteStore:
    """Tasks in a file, of which this process is the only writer.

    One connection belongs to the writer thread, another to the thread that reads; bulk reads open one of their own, so
    that all they read is of one moment, while other reads see the newest.

    Raises:
        StoreBroken: the file can't be used; see the message. What is there is left as it was.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Two names of one file must not lead to two locks.
        self.path = os.path.realpath(os.fspath(path))
        self._lock = LockFile(f"{self.path}.lock", self.path)
        self._connections: list[sqlite3.Connection] = []
        try:
            with self._translating():
                self._writer = sqlite_opening.open_writer(self.path)
                self._connections.append(self._writer)
                self.boot = sqlite_opening.begin_boot(self._writer)
                self._reader = sqlite_opening.open_reader(self.path)
                self._connections.append(self._reader)
                ((self.store_id,),) = self._rows("SELECT value FROM meta WHERE key = 'store_id'")
                self._function_keys = {key for (key,) in self._rows("SELECT key FROM functions")}
                self._files = _files_of(self.path)
        except BaseException as error:
            self._close_connections()
            self._lock.withdraw()
            if isinstance(error, StoreFull):
                raise StoreBroken(f"the store can't be opened: {error}") from error
            raise
        self._damaged_functions: set[str] = set()
        """Those that were found to be so when they were read: they are replaced when they are written again."""
        self._sweep = FunctionSweep(self._function_keys)

    def write(self, batch: Batch) -> None:
        """Write the batch; when this returns it survives any crash. After an error nothing of it was written."""
        known = self._function_keys - self._damaged_functions if self._damaged_functions else self._function_keys
        new_functions = {key: data for key, data in batch.functions.items() if key not in known}
        with self._transaction():
            write_changes(self._writer, batch, new_functions)
        self._function_keys.update(new_functions)
        self._damaged_functions.difference_update(new_functions)
        used = {*batch.functions, *(row.function_key for row, _ in batch.added)}
        self._sweep.note_writing(used, len(batch.requests_done) + len(batch.forgotten))

    def tidy(self) -> bool:
        """Give room back to the disk, and remove functions that no task refers to; return whether to go on."""
        try:
            with self._translating():
                return self._empty_log() or self._release_pages() or self._sweep_functions()
        except StoreFull:
            return False  # to release pages takes room in the log; later, then

    def unfinished(self, chunk_size: int = 10_000) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        """Yield the tasks that are not final, in chunks: running ones first, then higher priority, then by number."""
        return self._read_tasks(UNFINISHED, chunk_size)

    def finished(self, chunk_size: int = 10_000) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        """Yield the tasks that are final, in chunks, those that ended first first."""
        return self._read_tasks(FINISHED, chunk_size)

    def last_sequence(self) -> int:
        """Return the highest sequence number ever stored; 0 if there was none."""
        sql = "SELECT max(sequence) FROM tasks UNION ALL SELECT value FROM meta WHERE key = 'last_sequence'"
        return max(number or 0 for (number,) in self._rows(sql))

    def request(self, sequence: int) -> bytes | None:
        """Return the payload of a task's request; None if it is not there (any more)."""
        return self._bytes(f"the request of task number {sequence}", "requests", "payload", "sequence", sequence)

    def result(self, sequence: int) -> StoredResult | None:
        """Return how a task ended; None if it has not, or its result was taken."""
        sql = "SELECT payload, traceback, checksum FROM results WHERE sequence = ?"
        for payload, traceback, checksum in self._rows(sql, sequence):
            self._check(f"the result of task number {sequence}", result_checksum(payload, traceback), checksum)
            return StoredResult(payload, traceback)
        return None

    def output(self, sequence: int) -> bytes:
        """Return what a task printed."""
        return self._bytes(f"the output of task number {sequence}", "outputs", "output", "sequence", sequence) or b""

    def function(self, key: str) -> bytes | None:
        """Return a pickled function."""
        for data, checksum in self._rows("SELECT data, checksum FROM functions WHERE key = ?", key):
            found = _checksum(data)
            if found != checksum:
                self._damaged_functions.add(key)
            self._check(f"the function {key}", found, checksum)
            return bytes(data)
        self._damaged_functions.add(key)
        return None

    def size_bytes(self) -> int:
        """Return what it takes on disk: the file, its log, and the index of that."""
        return sum(_file_bytes(f"{self.path}{suffix}") for suffix in ("", "-wal", "-shm"))

    def close(self) -> None:
        """Release everything. Safe to call twice. The log is emptied into the file, and removed."""
        # The lock last: until then nobody else may open the file.
        try:
            self._close_connections()
        finally:
            self._lock.close()

    def _close_connections(self) -> None:
        while self._connections:
            with contextlib.suppress(sqlite3.Error):  # a full disk; all that was acknowledged is in the log
                self._connections.pop().close()

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what is done within, or roll all of it back."""
        with self._translating():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                check_boot(self._writer, self.boot)
                yield
                self._check_place()
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite has rolled back by itself when the disk was full
                    self._writer.execute("ROLLBACK")
                raise

    def _check_place(self) -> None:
        """Refuse to go on in files that were removed or moved: SQLite still writes them, and nobody finds them."""
        if _files_of(self.path) != self._files:
            raise StoreBroken(
                f"the store {self.path} was moved, removed or replaced while a server used it, or its log was. Put "
                "back both, or give another path, and start the server again."
            )

    def _read_tasks(self, which: str, chunk_size: int) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        with self._translating(), contextlib.closing(sqlite_opening.open_reader(self.path)) as connection:
            yield from read_tasks(connection, which, chunk_size)

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._translating():
            return self._reader.execute(sql, values).fetchall()

    def _bytes(self, what: str, table: str, column: str, key: str, value: object) -> bytes | None:
        for found, checksum in self._rows(f"SELECT {column}, checksum FROM {table} WHERE {key} = ?", value):
            self._check(what, _checksum(found), checksum)
            return bytes(found)
        return None

    def _check(self, what: str, found: int, noted: int) -> None:
        if found != noted:
            raise StoreBroken(f"the store {self.path} is damaged: {what} is not what was written. Restore a backup.")

    def _empty_log(self) -> bool:
        """Bring the log into the file, if it is large, or if the file has pages to drop."""
        pages, page_bytes = self._pragma("page_count"), self._pragma("page_size")
        is_large = _file_bytes(f"{self.path}-wal") > LOG_BYTES
        if not is_large and _file_bytes(self.path) <= pages * page_bytes + SPARE_BYTES:
            return False
        # A reader (somebody's backup) may need the log as it is: do not wait for that, the commits would wait as well.
        self._writer.execute("PRAGMA busy_timeout = 0")
        try:
            (is_blocked, _, _) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._writer.execute(f"PRAGMA busy_timeout = {round(sqlite_opening.BUSY_TIMEOUT_SECONDS * 1000)}")
        return not is_blocked

    def _release_pages(self) -> bool:
        if self._pragma("freelist_count") * self._pragma("page_size") <= SPARE_BYTES:
            return False
        # `execute` would stop at the first row, and this pragma gives an empty one for each page.
        self._writer.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        return True

    def _pragma(self, name: str) -> int:
        value: int = self._writer.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _sweep_functions(self) -> bool:
        with self._transaction():
            return self._sweep.step(self._writer)


def _checksum(found: object) -> int:
    """Return the checksum of bytes, or what is none of anything: a flipped bit may have made a text of them."""
    return crc32(found) if isinstance(found, bytes) else -1


def _files_of(path: str) -> list[tuple[int, int] | None]:
    """Return what tells the database and its log from all other files; None for one that is not there."""
    found: list[tuple[int, int] | None] = []
    for name in (path, f"{path}-wal"):
        try:
            status = os.stat(name)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found


def _file_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
