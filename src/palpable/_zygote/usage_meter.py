"""What each task used, in a process that runs many.

Runs in: task processes with isolation "worker".
"""

from __future__ import annotations

import sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import perf_counter, process_time

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`."""
SHORT_SECONDS = 0.001
"""A shorter task is not asked about children and memory, which would take a tenth of the time that it takes in all.
What it does use of them is counted with the next task that is longer."""


class UsageMeter:
    """Measures one task after the other."""

    def __init__(self) -> None:
        self._children_seconds = 0.0
        self._peak_bytes = 0
        self._started_at = 0.0
        self._cpu_at_start = 0.0

    def begin(self) -> None:
        """A task begins."""
        if not self._peak_bytes:
            self._look()
        self._started_at = perf_counter()
        self._cpu_at_start = process_time()

    def end(self) -> tuple[float, int]:
        """It has ended: return the CPU seconds it used, its children included, and the highest memory until now."""
        cpu_seconds = process_time() - self._cpu_at_start
        if perf_counter() - self._started_at >= SHORT_SECONDS:
            cpu_seconds += self._look()
        return cpu_seconds, self._peak_bytes

    def _look(self) -> float:
        """Note the memory; return the CPU seconds of children that have ended since the last look."""
        children = getrusage(RUSAGE_CHILDREN)
        seconds = children.ru_utime + children.ru_stime
        since, self._children_seconds = seconds - self._children_seconds, seconds
        self._peak_bytes = max(getrusage(RUSAGE_SELF).ru_maxrss, children.ru_maxrss) * RSS_UNIT_BYTES
        return since
