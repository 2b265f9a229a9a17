"""Addresses: what is understood, what is refused, and where to look when nothing is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from palpable._connection import address as addresses
from palpable._connection.address import Address, make_address, parse_url, resolve, runtime_folder
from palpable._connection.authkey import write_authkey_file
from palpable.units.task_exceptions import AuthenticationFailed, ServerUnreachable


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (addresses.URL_VARIABLE, addresses.KEY_VARIABLE, addresses.KEY_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv(addresses.HOME_VARIABLE, str(folder))
    return folder


@pytest.mark.parametrize(
    "url",
    [
        "unix:///run/user/1/palpable/server.sock",
        "unix:///a%20b",
        "tcp://127.0.0.1:8089",
        "tcp://[::1]:9",
        "tls://a.b:1",
    ],
)
def test_a_url_and_its_address_turn_into_each_other(url: str) -> None:
    assert parse_url(url).url == url


def test_a_path_that_is_no_text_has_a_url_too() -> None:
    path = os.fsdecode(b"/run/caf\xe9")
    assert Address(path=path).url == "unix:///run/caf%E9"
    assert parse_url("unix:///run/caf%E9").path == path


@pytest.mark.parametrize(
    "url",
    ["http://a:1", "tcp://a", "tcp://:5", "tcp://a:0", "tcp://a:99999", "unix://relative", "unix:///", "", "tcp://a:x"],
)
def test_a_url_that_is_no_address_is_refused_and_the_three_kinds_are_shown(url: str) -> None:
    if url == "unix:///":
        assert parse_url(url).path == "/"
        return
    with pytest.raises(ValueError, match=r"unix:///path/of/socket, tcp://host:port or tls://host:port"):
        parse_url(url)


@pytest.mark.parametrize(
    ("given", "family", "made"),
    [
        (("127.0.0.1", 8089), "AF_INET", Address(host="127.0.0.1", port=8089)),
        (["::1", 1], "AF_INET6", Address(host="::1", port=1)),
        ("/tmp/x.sock", "AF_UNIX", Address(path="/tmp/x.sock")),
        (Path("/tmp/x.sock"), None, Address(path="/tmp/x.sock")),
        ("tls://a:5", None, Address(host="a", port=5, is_tls=True)),
        (Address(path="/x"), None, Address(path="/x")),
    ],
)
def test_what_users_pass_as_an_address(given: Any, family: str | None, made: Address) -> None:
    assert make_address(given, family) == made


@pytest.mark.parametrize(
    ("given", "family", "error", "words"),
    [
        (("a", 0), None, ValueError, "port of the address must be a whole number from 1 to 65535, not 0"),
        (("a", "80"), None, TypeError, "port of the address"),
        (("a", True), None, TypeError, "port of the address"),
        ((b"a", 80), None, TypeError, "host of the address"),
        (5, None, TypeError, "a path, .host, port. or a URL"),
        (("a", 1, 2), None, TypeError, "a path, .host, port. or a URL"),
        ("/x", "AF_INET", ValueError, "does not fit family='AF_INET'"),
        (("a", 1), "AF_UNIX", ValueError, "does not fit"),
        ("/x", "AF_X", ValueError, "family must be"),
        ("/" + "x" * 200, None, ValueError, "107 bytes"),
        ("", None, ValueError, "must not be empty"),
        (b"/x", None, TypeError, "address must be"),
    ],
)
def test_what_is_no_address_is_refused_at_once(
    given: Any, family: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make_address(given, family)


def test_the_default_server_is_in_the_runtime_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses.default_address().path == str(home / "server.sock")
    monkeypatch.delenv(addresses.HOME_VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert runtime_folder() == Path("/run/user/7/palpable")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_folder().name == f"palpable-{os.getuid()}"


def test_the_runtime_folder_is_made_for_this_user_alone(home: Path) -> None:
    assert runtime_folder(create=True).stat().st_mode & 0o777 == 0o700


def test_a_runtime_folder_that_others_may_write_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(AuthenticationFailed, match="chmod 700"):
        runtime_folder()


def test_a_runtime_folder_that_is_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    home.symlink_to(tmp_path)
    with pytest.raises(AuthenticationFailed, match="not a folder of this user"):
        runtime_folder(create=True)


def test_without_a_default_server_the_message_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(ServerUnreachable, match="palpable serve"):
        resolve()


def test_the_key_lies_beside_the_socket(home: Path) -> None:
    runtime_folder(create=True)
    key = write_authkey_file(home / "authkey")
    assert resolve() == (addresses.default_address(), key)
    assert resolve(str(home / "other.sock")) == (Address(path=str(home / "other.sock")), key)


def test_the_environment_names_server_and_key(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_URL", "tcp://localhost:5")
    with pytest.raises(AuthenticationFailed, match="PALPABLE_AUTHKEY"):
        resolve()
    key = write_authkey_file(tmp_path / "k")
    monkeypatch.setenv("PALPABLE_AUTHKEY_FILE", str(tmp_path / "k"))
    assert resolve() == (Address(host="localhost", port=5), key)
    monkeypatch.setenv("PALPABLE_AUTHKEY", "secret")
    assert resolve()[1] == b"secret"
    assert resolve(("a", 1), "AF_INET", b"mine") == (Address(host="a", port=1), b"mine")


def test_a_key_file_that_is_named_and_not_there_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_AUTHKEY_FILE", "/no/such/file")
    with pytest.raises(AuthenticationFailed, match="/no/such/file"):
        resolve(("a", 1))


def test_a_key_that_is_no_bytes_is_a_type_error_that_does_not_show_it() -> None:
    with pytest.raises(TypeError, match="authkey must be bytes") as caught:
        resolve(("a", 1), None, "s3cret")  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("127.0.0.1:80", r"\('127.0.0.1', 80\) or 'tcp://127.0.0.1:80'.* './127.0.0.1:80'"),
        ("build-7.example.org:8089", r"\('build-7.example.org', 8089\)"),
        ("[::1]:80", r"\('::1', 80\) or 'tcp://\[::1\]:80'"),
        (":8089", r"\('127.0.0.1', 8089\) or 'tcp://127.0.0.1:8089'"),
    ],
)
@pytest.mark.parametrize("family", [None, "AF_INET"])
def test_a_host_and_a_port_in_one_string_are_not_taken_for_a_path(text: str, advice: str, family: str | None) -> None:
    with pytest.raises(ValueError, match=advice):
        make_address(text, family)


@pytest.mark.parametrize("address", ["./127.0.0.1:80", "/run/a:80", Path("a:80"), "a:b", "a:80:c"])
def test_what_can_be_nothing_but_a_path_is_one_even_with_a_colon(address: Any) -> None:
    assert make_address(address).path == os.path.abspath(address)


def test_a_family_of_unix_sockets_makes_every_string_a_path() -> None:
    assert make_address("127.0.0.1:80", "AF_UNIX").path == os.path.abspath("127.0.0.1:80")


def test_a_url_in_the_environment_that_is_none_is_told_from_one_in_the_program(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALPABLE_URL", "127.0.0.1:80")
    with pytest.raises(ValueError, match=r"PALPABLE_URL: the address '127.0.0.1:80' is not understood"):
        resolve()
