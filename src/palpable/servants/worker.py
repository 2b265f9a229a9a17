"""A worker: the keeper of one slot.

Runs in: the server process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from palpable.servants.process_link import ProcessLink
from palpable.servants.servant import Servant


class Worker(Servant):
    """Keeps one slot, and knows the process that runs in it. What goes into the slot, the engine decides.

    Args:
        name: "Worker-1" and so on.
        slot: the number of its slot, from 0.
        find_link: returns the link to the process in a slot; None if the slot is free.
    """

    def __init__(self, name: str, slot: int, find_link: Callable[[int], ProcessLink | None]) -> None:
        self.name = name
        self.slot = slot
        self._find_link = find_link

    @property
    def link(self) -> ProcessLink | None:
        """The process in the slot. None: the slot is free."""
        return self._find_link(self.slot)

    @property
    def status(self) -> dict[str, Any]:
        """Return the worker's name, and its process with CPU and memory; a free worker has no process."""
        from palpable.servants.process_usage import usage_of  # with psutil, a tenth of a server's start

        link = self.link
        usage = usage_of(link.pid) if link is not None and link.pid is not None else None
        return {
            "name": self.name,
            "is_busy": link is not None,
            "processes": [] if usage is None else [usage],
        }
