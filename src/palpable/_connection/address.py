"""Where a server is: addresses, their URLs, and where to look when nothing is said.

unix:///run/user/1000/palpable/server.sock
tcp://127.0.0.1:8089
tls://build.example.org:8089

Runs in: clients, servers, and task processes whose code imports one of them: there each module costs a task time, so
what only some calls need is imported by these.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from palpable._connection import inside
from palpable._connection.authkey import KEY_FILE_NAME, read_authkey_file
from palpable._connection.checks import check_number
from palpable._wire.handshake import checked_authkey
from palpable.units.task_exceptions import AuthenticationFailed, ServerUnreachable

if TYPE_CHECKING:
    from pathlib import Path

URL_VARIABLE = "PALPABLE_URL"
KEY_VARIABLE = "PALPABLE_AUTHKEY"
KEY_FILE_VARIABLE = "PALPABLE_AUTHKEY_FILE"
HOME_VARIABLE = "PALPABLE_HOME"
SOCKET_NAME = "server.sock"
HOST_AND_PORT = re.compile(r"([\w.-]*|\[[0-9a-fA-F:.%\w]+\]):(\d+)")
"""Not an address here: it could be the path of a socket too."""
PATH_MAX_BYTES = 107
"""What fits into `sockaddr_un` on Linux (104 on macOS, which says so itself)."""


class Address(NamedTuple):
    """The address of a server: a path, or a host and a port."""

    path: str = ""
    host: str = ""
    port: int = 0
    is_tls: bool = False

    @property
    def family(self) -> str:
        """ "AF_UNIX" or "AF_INET", as the constructors of Server and Client take it."""
        return "AF_UNIX" if self.path else "AF_INET"

    @property
    def url(self) -> str:
        """As text; `parse_url` turns it back."""
        if self.path:
            from urllib.parse import quote

            return f"unix://{quote(os.fsencode(self.path))}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.is_tls else 'tcp'}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.url


def parse_url(url: str) -> Address:
    """Return the address that a URL names.

    Raises:
        ValueError: it is none of the three kinds; the message shows them.

    Example:
        >>> parse_url("tcp://127.0.0.1:8089")
        Address(path='', host='127.0.0.1', port=8089, is_tls=False)
    """
    from urllib.parse import unquote_to_bytes, urlsplit

    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return _unix(os.fsdecode(unquote_to_bytes(parts.path)))
    if parts.scheme in ("tcp", "tls") and parts.hostname and port and not parts.path.strip("/"):
        return Address(host=parts.hostname, port=port, is_tls=parts.scheme == "tls")
    raise ValueError(
        f"the address {url!r} is not understood; write unix:///path/of/socket, tcp://host:port or tls://host:port"
    )


def address_of_environment(url: str) -> Address:
    """As `parse_url`, for the variable; the error names it."""
    try:
        return parse_url(url)
    except ValueError as error:
        raise ValueError(f"{URL_VARIABLE}: {error}") from None


def make_address(address: Any, family: str | None = None, *, least_port: int = 1) -> Address:
    """Return the address for what a user passed: a path, a (host, port), or a URL.

    Args:
        least_port: 0 for a server, which is given a free port then.

    Raises:
        TypeError, ValueError: it is none of these, or does not fit `family`. Also "host:port", which is more likely
            meant as such than as the path of a socket, but may be that.
    """
    if family not in (None, "AF_INET", "AF_INET6", "AF_UNIX"):
        raise ValueError(f"family must be 'AF_INET', 'AF_INET6' or 'AF_UNIX', not {family!r}")
    if isinstance(address, Address):
        made = address
    elif isinstance(address, str) and "://" in address:
        made = parse_url(address)
    elif isinstance(address, str) and family != "AF_UNIX" and (found := HOST_AND_PORT.fullmatch(address)):
        host, port = found.groups()
        raise ValueError(
            f"the address {address!r} names a host and a port: write ({host.strip('[]') or '127.0.0.1'!r}, {port}) or "
            f"'tcp://{host or '127.0.0.1'}:{port}'. A Unix socket of that name is './{address}'."
        )
    elif isinstance(address, str | os.PathLike):
        made = _unix(os.fspath(address))
    else:
        try:
            host, port = address
        except (TypeError, ValueError):
            raise TypeError(f"address must be a path, (host, port) or a URL, not {address!r}") from None
        if not isinstance(host, str):
            raise TypeError(f"the host of the address must be a string, not {host!r}")
        port = check_number("the port of the address", port, least=least_port, most=65535, is_whole=True)
        made = Address(host=host, port=port)
    if family is not None and (family == "AF_UNIX") != (made.family == "AF_UNIX"):
        raise ValueError(f"the address {address!r} does not fit family={family!r}")
    return made


def _unix(path: Any) -> Address:
    if not isinstance(path, str):
        raise TypeError(f"the path of a Unix socket must be a string, not {path!r}")
    absolute = os.path.abspath(path)
    if not path or "\0" in path:
        raise ValueError(f"the path of a Unix socket must not be empty or hold a zero byte, not {path!r}")
    if len(os.fsencode(absolute)) > PATH_MAX_BYTES:
        raise ValueError(
            f"the path of a Unix socket can be {PATH_MAX_BYTES} bytes long at most, this one is longer: {absolute}"
        )
    return Address(path=absolute)


# --- the user's default server ------------------------------------------------------------------------------------


def runtime_folder(*, create: bool = False) -> Path:
    """Return the folder of the user's default server: its socket and its key.

    $PALPABLE_HOME, else $XDG_RUNTIME_DIR/palpable, else palpable-<uid> in the folder for temporary files.

    Args:
        create: make it, for this user only, if it is not there.

    Raises:
        AuthenticationFailed: it belongs to somebody else, or others may write there: the server could be anybody's.
    """
    import tempfile
    from pathlib import Path

    home, runtime = os.environ.get(HOME_VARIABLE), os.environ.get("XDG_RUNTIME_DIR")
    if home:
        folder = Path(home)
    elif runtime:
        folder = Path(runtime, "palpable")
    else:
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
        folder = Path(tempfile.gettempdir(), f"palpable-{user}")
    folder = folder.absolute()
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return folder
    if hasattr(os, "getuid"):
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise AuthenticationFailed(
                f"{folder} is not a folder of this user. Remove it, or set {HOME_VARIABLE} to a folder of your own."
            )
        if status.st_mode & 0o022:
            raise AuthenticationFailed(f"others may write in {folder}. Run: chmod 700 {folder}")
    return folder


def default_address() -> Address:
    """Return the address of the user's default server: a Unix socket in the runtime folder."""
    return _unix(str(runtime_folder() / SOCKET_NAME))


def resolve(address: Any = None, family: str | None = None, authkey: bytes | None = None) -> tuple[Address, bytes]:
    """Return where to connect and with which key, from what was passed, the environment, and the default server.

    The address: as passed, else $PALPABLE_URL, else the default server's. The key: as passed, else $PALPABLE_AUTHKEY,
    else the file $PALPABLE_AUTHKEY_FILE, else, for a Unix socket, the file `authkey` beside it.

    Raises:
        TypeError, ValueError: the address or the key is not one.
        ServerUnreachable: nothing was passed, and there is no default server.
        AuthenticationFailed: no key is found, or the key file is open to others.
    """
    if authkey is not None:
        authkey = checked_authkey(authkey)
    is_default = False
    if address is not None:
        where = make_address(address, family)
    elif os.environ.get(URL_VARIABLE):
        where = make_address(address_of_environment(os.environ[URL_VARIABLE]), family)
    elif inside.is_descendant():
        raise ServerUnreachable(
            f"inside a task, an AsyncClient and a client in a forked process must be told where the server is: pass "
            f"address and authkey, or set {URL_VARIABLE}. Only Client() in the task's own process finds it by itself."
        )
    else:
        is_default = True
        where = default_address()
    if authkey is None:
        authkey = _find_key(where, is_default=is_default)
    return where, authkey


def _find_key(where: Address, *, is_default: bool) -> bytes:
    key = os.environ.get(KEY_VARIABLE)
    if key:
        return os.fsencode(key)
    path = os.environ.get(KEY_FILE_VARIABLE)
    try:
        if path:
            return read_authkey_file(path)
        if where.path:
            return read_authkey_file(os.path.join(os.path.dirname(where.path), KEY_FILE_NAME))
    except FileNotFoundError as error:
        if is_default and not path:
            raise ServerUnreachable(
                f"no default server runs for this user (no {error.filename}). Start one with `palpable serve`, or "
                f"say where the server is: Client(address, family, authkey), or the variable {URL_VARIABLE}.",
                address=where.url,
            ) from None
        if path:
            raise AuthenticationFailed(f"{KEY_FILE_VARIABLE} names a file that is not there: {path}") from None
    raise AuthenticationFailed(
        f"no authkey for the server at {where.url}: pass authkey=..., or set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
    )
