"""What each task used, in a process that runs many.

Runs in: task processes with isolation "worker".
"""

from __future__ import annotations

import sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`."""
SHORT_SECONDS = 0.001
"""A shorter task is not asked about children and memory, which would take a tenth of the time that it takes in all.
What it does use of them is counted with the next task that is longer."""


GAP_SECONDS = 0.001
"""To ask for CPU time takes a tenth of the time of a small task, so a task that follows at once begins where the one
before has ended."""


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
