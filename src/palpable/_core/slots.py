"""Room for running tasks: the slots, and who is in them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from palpable._core.runner import Runner


class Slots:
    """A fixed number of slots, numbered from 0; the lowest free one is given first.

    Invariant: a slot has at most one runner, and a runner at most one slot.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count))
        self._runners: list[Runner | None] = [None] * count

    @property
    def free_count(self) -> int:
        return len(self._free)

    def occupy(self, runner: Runner) -> None:
        """Give the runner a slot. There must be a free one."""
        slot = heapq.heappop(self._free)
        self._runners[slot] = runner
        runner.slot = slot

    def release(self, runner: Runner) -> None:
        """Take the runner's slot back. Does nothing if it has none."""
        if runner.slot is not None:
            self._runners[runner.slot] = None
            heapq.heappush(self._free, runner.slot)
            runner.slot = None

    def runners(self) -> Iterator[Runner]:
        """Yield the runners that have a slot."""
        return (runner for runner in self._runners if runner is not None)

    def has_queue(self) -> bool:
        """Whether behind a task that runs in a slot another one waits."""
        for runner in self._runners:  # noqa: SIM110 - a loop takes half as long, and this is asked after every event
            if runner is not None and len(runner.inbox) > 1:
                return True
        return False

    def runner_in(self, slot: int) -> Runner | None:
        return self._runners[slot]
