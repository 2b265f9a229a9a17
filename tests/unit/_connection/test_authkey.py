"""The key in its file: for its owner alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from palpable._connection.authkey import read_authkey_file, write_authkey_file
from palpable.units.task_exceptions import AuthenticationFailed


def test_a_key_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert write_authkey_file(tmp_path / "key", b"\x00\xff secret ") == b"\x00\xff secret "
    assert read_authkey_file(tmp_path / "key") == b"\x00\xff secret "


def test_a_new_key_is_long_and_differs(tmp_path: Path) -> None:
    first, second = write_authkey_file(tmp_path / "key"), write_authkey_file(tmp_path / "key")
    assert len(first) == 64 and first != second == read_authkey_file(tmp_path / "key")


def test_the_file_is_for_its_owner_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_authkey_file(tmp_path / "key", b"k")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    write_authkey_file(tmp_path / "key", b"k")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(AuthenticationFailed, match="chmod 600"):
        read_authkey_file(tmp_path / "key")


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    with pytest.raises(AuthenticationFailed, match="is empty"):
        read_authkey_file(path)


@pytest.mark.parametrize("key", [b"", b"ends\n", b"ends\r\n"])
def test_a_key_that_would_not_come_back_the_same_is_not_written(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(ValueError, match="line end"):
        write_authkey_file(tmp_path / "key", key)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_authkey_file(tmp_path / "none")
