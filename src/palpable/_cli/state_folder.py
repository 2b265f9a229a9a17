"""The folder in which a user's server keeps what is to survive it."""

from __future__ import annotations

import os
from pathlib import Path

STORE_NAME = "jobs.db"


def default_store(*, create: bool = False) -> Path:
    """Return the file in which `palpable serve` keeps tasks and results, unless it is told otherwise.

    $XDG_STATE_HOME/palpable/jobs.db, else ~/.local/state/palpable/jobs.db.

    Args:
        create: make the folder, for this user only, if it is not there.

    Raises:
        OSError: it can't be made.
    """
    state = os.environ.get("XDG_STATE_HOME") or ""
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    folder = base / "palpable"
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / STORE_NAME
