"""From the schema of an older release to the newest: one script for each version, `NNNN_what_it_does.sql`.

`0002_what_it_does.sql` makes version 2 of version 1, and so on; `schema.sql` is the newest version in full, for new
files. A script that was released is never changed.
"""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Final

SCHEMA_VERSION: Final = 1
"""That of `schema.sql`; files carry theirs in `PRAGMA user_version`."""


def scripts() -> dict[int, str]:
    """Return the scripts by the version they lead to."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    return {int(file.name[:4]): file.read_text() for file in files}


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version to the newest.

    Each step is a transaction: when one fails, or the machine, the file is whole, and as new as the last step made it.
    """
    steps = scripts()
    for target in range(version + 1, SCHEMA_VERSION + 1):
        run_script(connection, f"{steps[target]}\nPRAGMA user_version = {target};")


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run several statements in one transaction."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
