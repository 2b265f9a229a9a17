"""How long tasks of a kind take, as far as seen: what sizes the batches of worker mode."""

from __future__ import annotations

from collections.abc import Iterable

BATCH_SECONDS = 0.002
"""The work a process is handed ahead. Much less, and it idles between messages; much more, and a task behind a slow one
waits longer before it is taken back."""
BATCH_MAX = 128
"""Tasks handed ahead at most; also keeps a socket buffer from filling."""
WEIGHT = 0.2
"""Of the newest duration in the running average."""
AHEAD_SECONDS = 0.005
"""Of tasks that take less, one is handed ahead at least, so that a process need not wait for it."""
KINDS_MAX = 10_000


class DurationEstimates:
    """Exponentially weighted averages of durations, by kind of task (its function)."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def learn(self, kind: str, durations: Iterable[float]) -> None:
        """Take the durations of finished tasks into account. A long one counts at once, a short one slowly."""
        known = self._seconds.get(kind)
        if known is None and len(self._seconds) >= KINDS_MAX:
            self._seconds.clear()
        for seconds in durations:
            if known is None or seconds > known * 4:
                known = seconds
            else:
                known += WEIGHT * (seconds - known)
        if known is not None:
            self._seconds[kind] = known

    def batch_size(self, kind: str) -> int:
        """Return how many tasks of this kind make a batch; 1 if nothing is known of it, or it takes long."""
        seconds = self._seconds.get(kind)
        if seconds is None:
            return 1
        least = 2 if seconds < AHEAD_SECONDS else 1
        return max(least, min(BATCH_MAX, int(BATCH_SECONDS / max(seconds, 1e-6))))
