"""A disk that is full, that can't be written to, or that gives back something else than was written."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, Server
from palpable._store.sqlite_opening import CHECKED_BYTES, PAGE_BYTES
from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, StoreBroken, StoredResult, StoreFull
from palpable.units.task_exceptions import ServerUnreachable
from support import tasks
from support.scripts import run_script
from support.stored_tasks import add_tasks, all_tasks, ready, succeeded, task_row, tidy_up
from support.wait import wait_until

PAYLOAD = bytes(100_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", *arguments], capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a file system")


def _large_batch(number: int) -> Batch:
    return Batch(functions={f"f{number}": b"x"}, added=[(task_row(number), PAYLOAD)], states=[ready(number)])


def _fill(store: SqliteStore) -> int:
    """Write until there is no room, and return the number of the task that was refused."""
    for number in range(1, 1_000):
        try:
            store.write(_large_batch(number))
        except StoreFull as error:
            assert "make room" in str(error)
            return number
    raise AssertionError("the disk is never full")


def _check_that_nothing_of_it_was_written(store: SqliteStore, refused: int) -> None:
    assert list(all_tasks(store)) == list(range(1, refused))
    assert store.request(refused) is None
    assert store.function(f"f{refused}") is None
    assert store.request(refused - 1) == PAYLOAD


def test_a_full_disk_refuses_a_batch_whole_and_takes_it_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    store = SqliteStore(small_disk / "jobs.db")
    try:
        refused = _fill(store)
        _check_that_nothing_of_it_was_written(store, refused)
        with pytest.raises(StoreFull):  # asking again changes nothing
            store.write(_large_batch(refused))
        ballast.unlink()
        store.write(_large_batch(refused))
        assert store.request(refused) == PAYLOAD
        assert store.function(f"f{refused}") == b"x"
    finally:
        store.close()


def test_on_a_full_disk_tidying_is_put_off_and_closing_loses_nothing(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "jobs.db")
    refused = _fill(store)
    (small_disk / "ballast").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    with pytest.raises(StoreFull):
        store.write(_large_batch(refused))
    tidy_up(store)
    store.close()
    (small_disk / "ballast").unlink()
    again = SqliteStore(small_disk / "jobs.db")
    try:
        _check_that_nothing_of_it_was_written(again, refused)
    finally:
        again.close()


def test_a_store_on_a_full_disk_is_refused_with_the_reason_and_opens_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with pytest.raises(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(StoreBroken, match="no room"):
        SqliteStore(small_disk / "jobs.db")
    ballast.unlink()
    store = SqliteStore(small_disk / "jobs.db")
    add_tasks(store, 1)
    store.close()


def test_a_limit_of_the_file_size_is_no_room_either(tmp_path: Path) -> None:
    source = """
        import resource, signal
        from palpable._store.sqlite_store import SqliteStore
        from palpable._store.store import Batch, StoreFull
        from support.stored_tasks import all_tasks, ready, task_row

        store = SqliteStore("jobs.db")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        try:
            for number in range(1, 1000):
                store.write(Batch(added=[(task_row(number), bytes(50_000))], states=[ready(number)]))
        except StoreFull:
            assert list(all_tasks(store)) == list(range(1, number))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.write(Batch(added=[(task_row(number), bytes(50_000))], states=[ready(number)]))
        print("room again" if number < 1000 else "no limit")
        store.close()
    """
    source = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n" + _dedented(source)
    assert run_script(tmp_path, source) == "room again\n"


def test_a_disk_mounted_read_only_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    SqliteStore(folder / "jobs.db").close()
    _mount("--bind", str(folder), str(folder))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        with pytest.raises(StoreBroken, match=r"can't be opened \(Read-only file system\)"):
            SqliteStore(folder / "jobs.db")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_that_can_only_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    SqliteStore(path).close()
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True).returncode != 0:
        pytest.skip("this user, or this file system, can't make a file immutable")
    try:
        with pytest.raises(StoreBroken, match="can't be written to"):
            SqliteStore(path)
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    SqliteStore(path).close()


def test_a_disk_that_becomes_read_only_breaks_the_store_with_the_reason(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    store._writer.execute("PRAGMA query_only = ON")  # what SQLite then says is what it says of such a disk
    with pytest.raises(StoreBroken, match="can't be written to"):
        add_tasks(store, 1)
    store.close()


def _move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _replace(path: Path) -> None:
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").rename(path)


@pytest.mark.parametrize("lose", [os.unlink, _move, _replace])
@pytest.mark.parametrize("name", ["jobs.db", "jobs.db-wal"])
def test_nothing_is_confirmed_that_went_into_files_nobody_finds_again(
    lose: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    add_tasks(store, 1)
    lose(tmp_path / name)
    with pytest.raises(StoreBroken, match="was moved, removed or replaced"):
        add_tasks(store, 2)
    store.close()


def test_a_server_ends_when_its_store_is_removed_and_says_so_in_its_log(tmp_path: Path) -> None:
    server = Server(tmp_path / "logs", num_workers=1, store=tmp_path / "jobs.db").start()
    with Client(server.address, "AF_UNIX", server.authkey, reconnect_seconds=0) as client:
        assert client.run(tasks.double, 2) == 4
        (tmp_path / "jobs.db").unlink()
        with pytest.raises(ServerUnreachable):
            client.run(tasks.double, 2)
    server.join()
    server.close()
    assert "was moved, removed or replaced" in (tmp_path / "logs" / "server.log").read_text()


# --- damaged functions --------------------------------------------------------------------------------------------

DAMAGE = {
    "another byte": "UPDATE functions SET data = cast('x' || data AS BLOB)",
    "a text": "UPDATE functions SET data = cast(hex(data) AS TEXT)",
    "another checksum": "UPDATE functions SET checksum = checksum + 1",
    "gone": "DELETE FROM functions",
}
each_damage = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())


def _damage(folder: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "jobs.db")) as connection, connection:
        assert connection.execute(sql).rowcount > 0


def _server(folder: Path, **settings: Any) -> Server:
    return Server(folder / "logs", num_workers=1, store=folder / "jobs.db", **settings)


def _count_in_log(folder: Path, words: str) -> int:
    return (folder / "logs" / "server.log").read_text().count(words)


@each_damage
def test_a_task_whose_function_is_damaged_cannot_be_retried_and_nobody_else_notices(
    tmp_path: Path, damage: str
) -> None:
    with _server(tmp_path) as server, server.client() as client:
        failed = client.submit(tasks.half, 3)
        assert isinstance(failed.exception(timeout=20), tasks.OddNumber)
    _damage(tmp_path, damage)
    with _server(tmp_path) as server, server.client() as client, server.client() as other:
        assert client.retry([failed.task_id, failed.task_id]) == [None, None]
        assert other.submit(tasks.double, 2).result(timeout=20) == 4
    assert _count_in_log(tmp_path, "can't be read") == 1


@each_damage
def test_a_damaged_function_is_replaced_by_the_one_that_a_client_sends(tmp_path: Path, damage: str) -> None:
    with _server(tmp_path) as server, server.client() as client:
        late = client.options(delay_seconds=3600).submit(tasks.double, 3)  # refers to it while the next server runs
        wait_until(lambda: late.state == "scheduled")
    _damage(tmp_path, damage)
    with _server(tmp_path) as server, server.client() as client:
        assert client.submit(tasks.double, 4).result(timeout=20) == 8
        assert client.cancel(late.task_id)
    with _server(tmp_path) as server, server.client() as client:
        (new_id,) = client.retry([late.task_id])
        assert new_id and client.result(new_id, 20) == 6


def test_tasks_whose_function_is_damaged_fail_alone_until_it_is_sent_again(tmp_path: Path) -> None:
    with _server(tmp_path, isolation="worker") as server, server.client() as client:
        client.submit(tasks.block, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
        waiting = [client.submit(tasks.double, number) for number in range(3)]
    _damage(tmp_path, DAMAGE["another byte"])
    with _server(tmp_path, isolation="worker") as server, server.client() as client:
        for future in waiting:
            with pytest.raises(RuntimeError, match="has lost the function"):
                client.result(future.task_id, 20)
        assert client.submit(tasks.double, 4).result(timeout=20) == 8  # by the process that has said so


@each_damage
def test_a_stored_function_is_replaced_if_it_was_found_damaged(filled: Path, damage: str) -> None:
    filled.rename(filled.with_name("jobs.db"))
    _damage(filled.parent, damage)
    good = b"function " * 1_000
    store = SqliteStore(filled)
    if damage == DAMAGE["gone"]:
        assert store.function("key") is None
    else:
        with pytest.raises(StoreBroken, match="damaged: the function key"):
            store.function("key")
    store.write(Batch(functions={"key": good}, added=[(task_row(501, function_key="key"), b"")], states=[ready(501)]))
    assert store.function("key") == good
    store.write(Batch(functions={"key": b"other"}))
    assert store.function("key") == good
    store.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed store with tasks, requests, results and functions."""
    path = tmp_path / "jobs.db"
    store = SqliteStore(path)
    rows = [(task_row(number, function_key="key"), b"request %d " % number * 20) for number in range(1, 501)]
    states = [ready(number) if number % 2 else succeeded(number) for number in range(1, 501)]
    results = [(number, StoredResult(b"result %d " % number * 20)) for number in range(2, 501, 2)]
    store.write(Batch(functions={"key": b"function " * 1_000}, added=rows, states=states, results=results))
    store.close()
    return path


def _read_all(path: Path) -> tuple[object, ...]:
    """All that is in the store."""
    store = SqliteStore(path)
    try:
        numbers = range(1, 501)
        return (
            all_tasks(store),
            [store.request(number) for number in numbers],
            [store.result(number) for number in numbers],
            [store.output(number) for number in numbers],
            store.function("key"),
        )
    finally:
        store.close()


def test_a_truncated_file_is_refused(filled: Path) -> None:
    os.truncate(filled, filled.stat().st_size // 2)
    with pytest.raises(StoreBroken, match="damaged"):
        SqliteStore(filled)


def test_a_file_cut_off_within_its_first_page_is_refused(filled: Path) -> None:
    os.truncate(filled, 50)
    with pytest.raises(StoreBroken, match="damaged"):
        SqliteStore(filled)


@pytest.mark.parametrize("is_small", [True, False])
def test_a_flipped_page_is_found_and_never_read_in_silence(
    filled: Path, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_small:
        monkeypatch.setattr("palpable._store.sqlite_opening.CHECKED_BYTES", 0)
    content = filled.read_bytes()
    before = _read_all(filled)
    unnoticed = []
    for page in range(len(content) // PAGE_BYTES):
        start = page * PAGE_BYTES
        flipped = bytes(byte ^ 0xFF for byte in content[start : start + PAGE_BYTES])
        filled.write_bytes(content[:start] + flipped + content[start + PAGE_BYTES :])
        try:
            if _read_all(filled) != before:
                unnoticed.append(page)
        except StoreBroken as error:
            assert "store" in str(error)
    assert unnoticed == []


def test_a_flipped_bit_in_a_payload_or_a_name_is_found_when_it_is_read(filled: Path) -> None:
    content = filled.read_bytes()
    for text in (b"request 77 ", b"result 78 ", b"function function ", b"task-79"):
        flipped = bytes([text[0] ^ 1]) + text[1:]
        filled.write_bytes(content.replace(text, flipped))  # all, since pages also hold remains of what was moved
        with pytest.raises(StoreBroken, match="damaged"):
            _read_all(filled)


def test_damage_found_while_writing_is_reported(filled: Path) -> None:
    store = SqliteStore(filled)
    (root,) = store._reader.execute("SELECT rootpage FROM sqlite_master WHERE name = 'states'").fetchone()
    with open(filled, "r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(random.Random(1).randbytes(PAGE_BYTES))
    store._writer.execute("PRAGMA shrink_memory")
    with pytest.raises(StoreBroken, match="damaged"):
        store.write(Batch(states=[succeeded(1)]))
    store.close()


def test_the_whole_file_is_checked_at_opening_if_it_is_small(filled: Path) -> None:
    assert filled.stat().st_size < CHECKED_BYTES
    connection = sqlite3.connect(filled)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE states SET attempt = -1 WHERE sequence = 3")
    connection.commit()
    connection.close()
    with pytest.raises(StoreBroken, match="CHECK constraint failed in states"):
        SqliteStore(filled)


def _dedented(source: str) -> str:
    return "\n".join(line.removeprefix(" " * 8) for line in source.splitlines())
