"""The key that client and server prove to each other, in a file of its own."""

from __future__ import annotations

import os
import stat

from palpable.units.task_exceptions import AuthenticationFailed

KEY_FILE_NAME = "authkey"


def read_authkey_file(path: str | os.PathLike[str]) -> bytes:
    """Return the key in a file: its bytes, without line ends at the end.

    Raises:
        FileNotFoundError: there is no such file.
        AuthenticationFailed: others may read or write it (as ssh, this refuses such a key), or it is empty.
    """
    with open(path, "rb") as file:
        # Of the open file, not of the path, which may name another file by now.
        status = os.fstat(file.fileno())
        if hasattr(os, "getuid"):  # not on Windows
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise AuthenticationFailed(
                    f"the key file {os.fspath(path)} can be read or written by others "
                    f"(mode {stat.S_IMODE(status.st_mode):o}). Run: chmod 600 {os.fspath(path)}"
                )
            if status.st_uid not in (os.getuid(), 0):
                raise AuthenticationFailed(f"the key file {os.fspath(path)} belongs to another user")
        key = file.read(1 << 16).rstrip(b"\r\n")
    if not key:
        raise AuthenticationFailed(f"the key file {os.fspath(path)} is empty")
    return key


def write_authkey_file(path: str | os.PathLike[str], authkey: bytes | None = None) -> bytes:
    """Write a key to a file that only this user can read; return the key. Replaces the file at once, or not at all.

    Args:
        authkey: None: a new random one, as hexadecimal digits.

    Raises:
        ValueError: the key is empty, or ends with a line end, which `read_authkey_file` would take off.
        OSError: the file can't be written.
    """
    import secrets
    from pathlib import Path

    key = secrets.token_hex(32).encode() if authkey is None else authkey
    if not key or key != key.rstrip(b"\r\n"):
        raise ValueError("authkey must not be empty, and must not end with a line end, to be kept in a file")
    target = Path(path)
    # Made with its final mode, before there is anything in it.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + b"\n")
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return key
