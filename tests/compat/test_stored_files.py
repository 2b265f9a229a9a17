"""Files that earlier versions have written can be used."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import StoredResult
from support.stored_tasks import all_tasks, failed, ready, running, succeeded, task_row

DUMPS = sorted((Path(__file__).parent / "stores").glob("version_*.sql"))


def _schema(path: Path) -> set[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    try:
        return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    finally:
        connection.close()


@pytest.fixture(params=DUMPS, ids=lambda dump: dump.stem)
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    connection = sqlite3.connect(path)
    connection.executescript(request.param.read_text())
    connection.close()
    return path


def test_a_file_of_each_version_keeps_its_tasks(old_file: Path) -> None:
    store = SqliteStore(old_file)
    try:
        policy = {"function_key": "key", "policy": '{"isolation":"worker","retries":2}'}
        assert all_tasks(store) == {
            1: (task_row(1, priority=1, **policy), ready(1)),
            2: (task_row(2, **policy), running(2)),
            3: (
                task_row(3, priority=1, **policy),
                succeeded(3, exit_status=0, cpu_seconds=0.25, peak_memory_bytes=1024, followup_ids=("task-9",)),
            ),
            4: (
                task_row(4, parent_id="task-1", depth=1, **policy),
                failed(4, error_type="builtins.ValueError", error_message="no", errors=1),
            ),
        }
        assert [store.request(number) for number in range(1, 5)] == [b"request 1", b"request 2", None, b"request 4"]
        assert store.result(3) == StoredResult(b"pickled value")
        assert store.result(4) == StoredResult(b"pickled error", "Traceback ...")
        assert store.output(3) == b"printed\n"
        assert store.function("key") == b"pickled function"
        assert (store.last_sequence(), store.boot) == (5, 2)
    finally:
        store.close()


def test_migrated_files_have_the_schema_of_new_ones(old_file: Path, tmp_path: Path) -> None:
    SqliteStore(old_file).close()
    SqliteStore(tmp_path / "new.db").close()
    assert _schema(old_file) == _schema(tmp_path / "new.db")
