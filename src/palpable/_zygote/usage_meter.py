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


GAP_SECONDS = 0.001
"""To ask for CPU time takes a tenth of the time of a small task, so a task that follows at once begins where the one
before has ended."""


class UsageMeter:
    """Measures one task after the other."""

    def __init__(self) -> None:
        self._children_seconds = 0.0
        self._peak_bytes = 0
        self._started_at = self._ended_at = 0.0
        self._cpu_at_start = self._cpu_at_end = 0.0

    def begin(self) -> None:
        """A task begins."""
        if not self._peak_bytes:
            self._look()
        self._started_at = started_at = perf_counter()
        is_at_once = started_at - self._ended_at < GAP_SECONDS
        self._cpu_at_start = self._cpu_at_end if is_at_once else process_time()

    def end(self) -> tuple[float, float, int]:
        """It has ended: return elapsed seconds, CPU seconds with those of its children, and the peak memory so far."""
        self._cpu_at_end = process_time()
        self._ended_at = perf_counter()
        cpu_seconds = self._cpu_at_end - self._cpu_at_start
        elapsed_seconds = self._ended_at - self._started_at
        if elapsed_seconds >= SHORT_SECONDS:
            cpu_seconds += self._look()
        return elapsed_seconds, cpu_seconds, self._peak_bytes

    def _look(self) -> float:
        """Note the memory; return the CPU seconds of children that have ended since the last look."""
        children = getrusage(RUSAGE_CHILDREN)
        seconds = children.ru_utime + children.ru_stime
        since, self._children_seconds = seconds - self._children_seconds, seconds
        self._peak_bytes = max(getrusage(RUSAGE_SELF).ru_maxrss, children.ru_maxrss) * RSS_UNIT_BYTES
        return since
