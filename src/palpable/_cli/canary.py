"""Tasks that only show that tasks work. Runs in: the task process; asked for by `palpable doctor`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

VISITS: list[int] = []
"""Empty in a process that is born clean."""


def sing(text: str) -> dict[str, Any]:
    """Print a line, and return what a canary can tell of where it is."""
    VISITS.append(1)
    print(text, flush=True)
    return {"text": text, "pid": os.getpid(), "visits": len(VISITS), "python": sys.version.split()[0]}


def start_nest() -> None:
    """Start a child in a session of its own, print both pids, and sleep until ended."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)
