"""The key of a server that is started from the command line."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from palpable._connection.authkey import read_authkey_file, write_authkey_file


def read_or_make(path: Path) -> bytes:
    """Return the key in a file. If there is no such file, make it, with a new key that only this user can read.

    Of several processes that do so at once, one makes the key and all return it.

    Raises:
        AuthenticationFailed: there is a key file, and others may read it, or it is not one.
        OSError: it can't be read, or made.
    """
    try:
        return read_authkey_file(path)
    except FileNotFoundError:
        pass
    complete = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    write_authkey_file(complete)
    try:
        # Unlike a rename, this fails if somebody else was faster. That one may serve with its key by now.
        os.link(complete, path)
    except FileExistsError:
        pass
    finally:
        complete.unlink()
    return read_authkey_file(path)
