"""The files of a store: who may read them, who may open them, and which are refused with a reason."""

from __future__ import annotations

import errno
import os
import queue
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable._store import migrations
from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, StoreBroken
from support.processes import wait_gone
from support.scripts import run_script, started_script
from support.stored_tasks import add_tasks, all_tasks, ready, succeeded, task_row, tidy_up


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def _reopened(path: Path) -> dict[int, str]:
    """The tasks in the file, with their states."""
    store = SqliteStore(path)
    try:
        return {number: state.state for number, (_, state) in all_tasks(store).items()}
    finally:
        store.close()


def test_a_store_keeps_everything_when_it_is_closed_and_opened_again(path: Path) -> None:
    store = SqliteStore(path)
    row = task_row(1, function_key="key")
    store.write(
        Batch(functions={"key": b"function"}, added=[(row, b"request")], states=[ready(1)], outputs=[(1, b"out")])
    )
    store.close()
    again = SqliteStore(path)
    try:
        assert all_tasks(again) == {1: (row, ready(1))}
        assert (again.request(1), again.output(1), again.function("key")) == (b"request", b"out", b"function")
        assert (again.boot, again.store_id) == (2, store.store_id)
    finally:
        again.close()


def test_numbers_are_not_given_out_again_after_a_restart(path: Path) -> None:
    store = SqliteStore(path)
    add_tasks(store, 1, 2)
    store.write(Batch(forgotten=[1, 2]))
    store.close()
    again = SqliteStore(path)
    assert again.last_sequence() == 2
    again.close()


def test_strings_that_repeat_become_one_object(store: SqliteStore) -> None:
    add_tasks(store, 1, 2, 3, name="module.function", function_key="key" * 20, policy='{"isolation":"worker"}')
    rows = [row for chunk in store.unfinished() for row, _ in chunk]
    for field in ("name", "form", "function_key", "policy"):
        assert len({id(getattr(row, field)) for row in rows}) == 1


def test_all_files_are_private_from_the_first_moment(path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(path)
    finally:
        os.umask(before)
    add_tasks(store, 1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("jobs.db*")}
    store.close()
    assert modes == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db.lock"), 0o600)


def test_a_backup_that_others_can_read_is_made_private_when_it_is_opened(path: Path) -> None:
    SqliteStore(path).close()
    path.chmod(0o644)
    SqliteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_server_on_the_same_file_is_refused(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "other name").symlink_to(path)
    for name in (path, tmp_path / "other name"):
        with pytest.raises(StoreBroken, match=f"is used by the server with pid {os.getpid()}"):
            SqliteStore(name)
    add_tasks(store, 1)


def test_the_store_of_a_killed_server_can_be_opened_at_once(path: Path) -> None:
    source = f"""
        import signal
        from palpable._store.sqlite_store import SqliteStore
        store = SqliteStore({str(path)!r})
        print("open", flush=True)
        signal.pause()
    """
    with started_script(path.parent, source) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreBroken, match=f"pid {process.pid}"):
            SqliteStore(path)
        process.kill()
        wait_gone([process.pid])
        assert _reopened(path) == {}


def test_a_program_started_by_the_server_does_not_keep_the_lock(path: Path) -> None:
    store = SqliteStore(path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as process:
        store.close()
        SqliteStore(path).close()
        process.communicate(b"\n")


def test_a_server_whose_lock_file_was_removed_stops_writing_when_another_one_has_begun(path: Path) -> None:
    old = SqliteStore(path)
    add_tasks(old, 1)
    path.with_name("jobs.db.lock").unlink()
    new = SqliteStore(path)
    try:
        with pytest.raises(StoreBroken, match="another server"):
            old.write(Batch(states=[succeeded(1)]))
        assert [state.state for _, state in all_tasks(new).values()] == ["ready"]
    finally:
        old.close()
        new.close()


def test_a_file_that_is_not_sqlite_is_refused_and_left_as_it_was(path: Path) -> None:
    path.write_text("my thesis\n" * 1000)
    path.chmod(0o644)
    with pytest.raises(StoreBroken, match="not an SQLite database"):
        SqliteStore(path)
    assert path.read_text() == "my thesis\n" * 1000
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_database_of_another_program_is_refused_and_left_as_it_was(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreBroken, match="not a store of Palpable"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    assert _reopened(path) == {}


def test_a_store_whose_making_was_interrupted_is_made_again(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert path.stat().st_size
    store = SqliteStore(path)
    add_tasks(store, 1)
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    connection.close()


def test_a_folder_is_refused_and_left_as_it_was(path: Path) -> None:
    path.mkdir(mode=0o755)
    with pytest.raises(StoreBroken, match="is not a file"):
        SqliteStore(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_pipe_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(StoreBroken, match="is not a file"):
        SqliteStore(path)


def test_a_disk_without_locks_is_refused_with_the_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("palpable._store.lock_file.fcntl.flock", flock)
    with pytest.raises(StoreBroken, match=r"can't be locked \(No locks available\)"):
        SqliteStore(path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreBroken, match="folder must exist"):
        SqliteStore(tmp_path / "no" / "jobs.db")


def test_a_newer_version_is_refused_and_left_as_it_was(path: Path) -> None:
    SqliteStore(path).close()
    _set_version(path, migrations.SCHEMA_VERSION + 1)
    before = path.read_bytes()
    with pytest.raises(StoreBroken, match="written by a newer Palpable"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_version_that_never_was_is_refused_and_left_as_it_was(path: Path) -> None:
    SqliteStore(path).close()
    _set_version(path, -5)
    before = path.read_bytes()
    with pytest.raises(StoreBroken, match="is damaged"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_an_older_version_is_brought_forward_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path)
    add_tasks(store, 1, 2)
    store.close()
    steps = {
        2: "CREATE TABLE notes (sequence INTEGER, note TEXT); INSERT INTO notes SELECT sequence, 'old' FROM tasks;",
        3: "ALTER TABLE notes ADD COLUMN colour TEXT; UPDATE notes SET colour = 'red';",
    }
    monkeypatch.setattr(migrations, "scripts", lambda: steps)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setattr("palpable._store.sqlite_opening.SCHEMA_VERSION", 3)
    assert _reopened(path) == {1: "ready", 2: "ready"}
    assert _rows(path, "PRAGMA user_version") == [(3,)]
    assert _rows(path, "SELECT * FROM notes") == [(1, "old", "red"), (2, "old", "red")]


def test_a_migration_that_fails_leaves_the_file_whole_and_as_new_as_it_got(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(path).close()
    steps = {
        2: "CREATE TABLE notes (note TEXT);",
        3: "INSERT INTO notes VALUES ('half'); INSERT INTO nowhere VALUES (1);",
    }
    monkeypatch.setattr(migrations, "scripts", lambda: steps)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setattr("palpable._store.sqlite_opening.SCHEMA_VERSION", 3)
    with pytest.raises(StoreBroken, match="nowhere"):
        SqliteStore(path)
    assert _rows(path, "PRAGMA user_version") == [(2,)]
    assert _rows(path, "SELECT * FROM notes") == []


def test_every_version_has_a_migration_to_the_next() -> None:
    assert sorted(migrations.scripts()) == list(range(2, migrations.SCHEMA_VERSION + 1))


def test_a_write_that_another_program_holds_up_fails_in_the_end_and_succeeds_later(
    path: Path, store: SqliteStore
) -> None:
    store._writer.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBroken, match="another program keeps it locked"):
        add_tasks(store, 1)
    other.close()
    add_tasks(store, 1)


def test_a_backup_can_be_made_with_the_shell_while_the_server_writes(path: Path, store: SqliteStore) -> None:
    add_tasks(store, 1, 2)
    backup, copy = path.with_name("backup.db"), path.with_name("copy.db")
    subprocess.run(["sqlite3", path, f".backup {backup}"], check=True)
    subprocess.run(["sqlite3", path, f"VACUUM INTO '{copy}'"], check=True)
    store.write(Batch(states=[succeeded(1)]))
    for file in (backup, copy):
        assert _reopened(file) == {1: "ready", 2: "ready"}
    assert _reopened_tidies(copy)


def _reopened_tidies(path: Path) -> bool:
    """Whether room can still be given back: that is a property of the file, and a copy has to keep it."""
    return _rows(path, "PRAGMA auto_vacuum") == [(2,)]


def test_the_views_show_times_that_people_can_read(path: Path, store: SqliteStore) -> None:
    add_tasks(store, 1, 2, 3)
    store.write(Batch(states=[succeeded(1, started_at=1.7e9, finished_at=1.7e9 + 1.5)]))
    sql = "SELECT started, finished, elapsed_seconds FROM task_list WHERE sequence = 1"
    assert _rows(path, sql) == [("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:21.500Z", 1.5)]
    assert _rows(path, "SELECT sequence, state FROM queue") == [(2, "ready"), (3, "ready")]
    assert _rows(path, "SELECT state, tasks FROM state_counts ORDER BY state") == [("ready", 2), ("succeeded", 1)]
    assert _rows(path, "SELECT sequence FROM failures") == []


def test_one_thread_reads_at_once_what_another_has_written(store: SqliteStore) -> None:
    written: queue.SimpleQueue[int] = queue.SimpleQueue()

    def write() -> None:
        for number in range(1, 101):
            add_tasks(store, number)
            written.put(number)
            store.tidy()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(1, 101):
            assert written.get(timeout=10) == number
            assert store.request(number) == b"request %d" % number
            assert store.last_sequence() >= number
    finally:
        thread.join()


def test_room_is_given_back_when_tasks_go(store: SqliteStore) -> None:
    payload = bytes(50_000)
    for start in range(1, 1_001, 100):
        numbers = range(start, start + 100)
        rows = [(task_row(number), payload) for number in numbers]
        store.write(Batch(added=rows, states=[ready(number) for number in numbers]))
    assert store.size_bytes() > 50_000_000
    store.write(Batch(forgotten=list(range(1, 1_001))))
    tidy_up(store)
    assert store.size_bytes() < 20_000_000
    assert not store.tidy()


def test_tidying_goes_on_when_a_reader_needs_the_log(path: Path, store: SqliteStore) -> None:
    add_tasks(store, 1, 2)
    reading = store.unfinished(chunk_size=1)
    next(reading)
    for number in range(10, 40):
        store.write(Batch(added=[(task_row(number), bytes(500_000))], states=[ready(number)]))
    log = path.with_name("jobs.db-wal")
    assert log.stat().st_size > 10_000_000
    tidy_up(store)
    assert log.stat().st_size > 10_000_000
    assert len(list(reading)) == 1
    tidy_up(store)
    assert log.stat().st_size < 10_000_000


def test_the_schema_is_part_of_an_installed_package(tmp_path: Path) -> None:
    source = """
        from palpable._store.sqlite_store import SqliteStore
        store = SqliteStore("jobs.db")
        print(store.boot)
        store.close()
    """
    assert run_script(tmp_path, source) == "1\n"


def _rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
