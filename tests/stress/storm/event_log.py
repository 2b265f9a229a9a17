"""What happened, written down outside the server: one line of JSON for each event, in files that only grow.

Runs in: clients, tasks, the nemesis. A line is one `write` to a file opened for appending, so that lines of many
processes do not mix, and a line that was written survives the `kill -9` of its writer the moment after.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events to a file. Safe to use from every thread, and from many processes at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, event: str, **facts: Any) -> None:
        """Note an event with what is known of it; `at` is monotonic, the same clock in every process of a machine."""
        line = {"event": event, "at": time.monotonic(), "utc": time.time(), **facts}
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_events(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the events of a file, in the order written; none if there is no such file."""
    if not Path(path).exists():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
