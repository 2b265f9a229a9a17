"""What a process that runs many tasks has used besides time: memory, and the CPU of children that have ended.

Runs in: task processes with isolation "worker".
"""

from __future__ import annotations

import sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`."""


class UsageMeter:
    """Looks, now and then, at what there is to know besides the time.

    Attributes:
        peak_bytes: the most memory that this process, or a child of it that has ended, has held so far.
    """

    def __init__(self) -> None:
        self._children_seconds = 0.0
        self.peak_bytes = 0
        self.look()

    def look(self) -> float:
        """Note the memory; return the CPU seconds of children that have ended since the last look."""
        children = getrusage(RUSAGE_CHILDREN)
        seconds = children.ru_utime + children.ru_stime
        since, self._children_seconds = seconds - self._children_seconds, seconds
        self.peak_bytes = max(getrusage(RUSAGE_SELF).ru_maxrss, children.ru_maxrss) * RSS_UNIT_BYTES
        return since
