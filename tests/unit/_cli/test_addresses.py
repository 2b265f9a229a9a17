"""Which server the options name: the same for the one that serves and for those that ask."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import closing
from pathlib import Path

import click
import pytest

from palpable._cli.ending import NotAsked
from palpable._cli.key_file import KeyFile
from palpable._cli.server_options import ServerChoice
from palpable._cli.serving_address import ServingAddress
from palpable.servants.listener import CannotListen
from palpable.units.task_exceptions import AuthenticationFailed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime folder of the default server; it is not there yet."""
    monkeypatch.setenv("PALPABLE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _choose(socket=None, host=None, port=None, certificate=None, authkey_file=None) -> ServingAddress:  # type: ignore[no-untyped-def]
    with closing(ServingAddress.choose(socket, host, port, certificate, authkey_file)) as where:
        return where


# --- serving ------------------------------------------------------------------------------------------------------


def test_the_default_server_lives_in_a_private_folder(home: Path) -> None:
    where = _choose()
    assert where.address == str(home / "server.sock")
    assert where.key_path == home / "authkey"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE(where.key_path.stat().st_mode) == 0o600
    assert where.authkey == where.key_path.read_bytes().strip()
    assert where.how_to_reach == "Client() and the other commands find it."


def test_a_runtime_folder_too_deep_for_a_socket_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 30)
    monkeypatch.setenv("PALPABLE_HOME", str(deep))
    with pytest.raises(click.UsageError, match="107 bytes"):
        _choose()
    assert not deep.exists()


def test_its_key_is_kept() -> None:
    assert _choose().authkey == _choose().authkey


def test_the_key_is_never_shown() -> None:
    where = _choose()
    assert where.authkey.decode() not in repr(where)


def test_a_socket_elsewhere_has_its_key_beside_it(tmp_path: Path) -> None:
    where = _choose(socket=str(tmp_path / "a b.sock"))
    assert where.key_path == tmp_path / "authkey"
    assert where.how_to_reach.endswith(f" find it with PALPABLE_URL=unix://{tmp_path}/a%20b.sock")


def test_tcp_has_the_key_of_the_default_server(home: Path) -> None:
    where = _choose(port=0).listening(("127.0.0.1", 4711))
    assert (where.url, where.key_path) == ("tcp://127.0.0.1:4711", home / "authkey")
    assert f"PALPABLE_URL=tcp://127.0.0.1:4711 PALPABLE_AUTHKEY_FILE={home}/authkey" in where.how_to_reach


def test_an_address_for_all_interfaces_is_told_with_the_name_of_the_machine() -> None:
    where = _choose(host="0.0.0.0", port=4711, certificate="server.crt")
    assert where.url == f"tls://{os.uname().nodename}:4711"
    assert "--tls server.crt" in where.how_to_reach


def test_the_environment_names_the_key_as_it_does_for_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_AUTHKEY_FILE", str(tmp_path / "k"))
    assert _choose().key_path == tmp_path / "k"
    monkeypatch.setenv("PALPABLE_AUTHKEY", "secret")
    assert (_choose().authkey, _choose().key_path) == (b"secret", None)
    assert _choose(authkey_file=str(tmp_path / "other")).key_path == tmp_path / "other"


def test_one_is_told_when_the_environment_names_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_URL", "tcp://127.0.0.1:1")
    assert "PALPABLE_URL names another server" in _choose().how_to_reach


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"socket": "/x/s", "port": 1}, "not on both"),
        ({"host": "127.0.0.1"}, "--host needs --port"),
        ({"certificate": "x.crt"}, "TLS is for TCP"),
        ({"socket": "/" + "x" * 200}, "107 bytes"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        _choose(**options)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAsked, match=f"no folder {tmp_path}/nowhere"):
        _choose(socket=str(tmp_path / "nowhere" / "s"))


def test_a_home_that_is_a_file_is_refused(home: Path) -> None:
    home.write_text("")
    with pytest.raises((NotAsked, AuthenticationFailed), match=str(home)):
        _choose()


def test_a_home_where_others_may_write_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(AuthenticationFailed, match="chmod 700"):
        _choose()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "another server listens on .*`palpable stop`"),
        (OSError(errno.EEXIST, "exists"), "is a file and no socket"),
        (PermissionError(errno.EACCES, "Permission denied", "/logs"), "can't use /logs: Permission denied"),
        (CannotListen(errno.EACCES, "Permission denied"), "can't listen on .*: Permission denied"),
        (TimeoutError("processes [7] do not end"), r"^the server could not start: processes \[7\] do not end"),
    ],
)
def test_why_it_cannot_listen_or_start_is_said_in_one_line(error: OSError, words: str) -> None:
    message = _choose().refused(error).message
    assert "\n" not in message
    with pytest.raises(click.ClickException, match=words):
        raise _choose().refused(error)


# --- the key file -------------------------------------------------------------------------------------------------


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    KeyFile(tmp_path / "key").close()
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(AuthenticationFailed, match="chmod 600"):
        KeyFile(tmp_path / "key")


def test_the_first_of_two_keys_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes its key after this one saw that there is none."""
    link = os.link

    def link_late(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"theirs\n")
        Path(target).chmod(0o600)
        link(source, target)

    monkeypatch.setattr(os, "link", link_late)
    with closing(KeyFile(tmp_path / "key")) as ours:
        assert ours.key == b"theirs"
    assert os.listdir(tmp_path) == ["key"]


def test_a_link_that_leads_nowhere_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        KeyFile(tmp_path / "key")


def test_a_key_that_nobody_came_to_use_goes_with_the_server_that_made_it(tmp_path: Path) -> None:
    KeyFile(tmp_path / "key").withdraw()
    assert os.listdir(tmp_path) == []


def test_a_key_that_was_there_before_stays(tmp_path: Path) -> None:
    KeyFile(tmp_path / "key").close()
    KeyFile(tmp_path / "key").withdraw()
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_another_server_uses_by_now_stays(tmp_path: Path) -> None:
    refused, other = KeyFile(tmp_path / "key"), KeyFile(tmp_path / "key")
    refused.withdraw()
    assert (tmp_path / "key").read_bytes().strip() == other.key
    other.withdraw()  # it has not made it, and does not know who else reads it
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_is_removed_while_another_server_waits_for_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that made it has it for itself when the other one has opened it already."""

    def lock_late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        refused.withdraw()
        fcntl.flock(descriptor, operation)

    refused = KeyFile(tmp_path / "key")
    monkeypatch.setattr(fcntl, "flock", lock_late)
    with closing(KeyFile(tmp_path / "key")) as other:
        assert other.key != refused.key
        assert (tmp_path / "key").read_bytes().strip() == other.key


# --- asking -------------------------------------------------------------------------------------------------------


def test_those_who_ask_look_where_the_others_serve(tmp_path: Path) -> None:
    for serving, asking in [
        (_choose(), ServerChoice()),
        (_choose(socket=str(tmp_path / "s")), ServerChoice(socket=str(tmp_path / "s"))),
        (_choose(port=4711), ServerChoice(port=4711)),
        (_choose(host="::1", port=4711), ServerChoice(host="::1", port=4711)),
    ]:
        address = asking.address()
        assert address.url == serving.url == ServerChoice(url=serving.url).address().url
        assert asking.authkey(address) == serving.authkey


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_URL", "tls://somewhere:1")
    assert ServerChoice().address().url == "tls://somewhere:1"
    assert ServerChoice(port=2).address().url == "tcp://127.0.0.1:2"


@pytest.mark.parametrize(
    "options",
    [{"socket": "s", "port": 1}, {"url": "tcp://h:1", "host": "h"}, {"socket": "s", "url": "u"}, {"host": "h"}],
)
def test_a_server_is_named_in_one_way(options: dict[str, str]) -> None:
    with pytest.raises(click.UsageError):
        ServerChoice(**options)
