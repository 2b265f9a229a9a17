"""What a process uses, as a status report says it."""

from __future__ import annotations

import time
from typing import Any

import psutil


def usage_of(pid: int) -> dict[str, Any] | None:
    """Return CPU and memory of a process and all its descendants; None if it is gone.

    `cpu` is the percentage of one core, averaged over the life of the process; `memory` is resident bytes.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            age = max(time.time() - process.create_time(), 1e-3)
            family = [process, *process.children(recursive=True)]
        cpu_seconds = 0.0
        memory = 0
        for member in family:
            try:
                times = member.cpu_times()
                cpu_seconds += times.user + times.system
                memory += member.memory_info().rss
            except psutil.Error:
                continue  # it ended while we looked
    except psutil.Error:
        return None
    return {"pid": pid, "cpu": round(100 * cpu_seconds / age, 1), "cpu_seconds": cpu_seconds, "memory": memory}
