"""What the zygote knows of its task processes.

Runs in: the zygote.
"""

from __future__ import annotations


class Books:
    """What the zygote knows of its task processes, and what it is to do about them.

    Attributes:
        alive: the spool file of each live task process, by pid.
        kill_at: when to kill those that were asked to end.
        count: how many are to be alive.
        fork_again_at: after a fork that failed; else 0.
    """

    __slots__ = ("alive", "count", "fork_again_at", "kill_at")

    def __init__(self) -> None:
        self.alive: dict[int, tuple[str, int]] = {}
        self.kill_at: dict[int, float] = {}
        self.count = 0
        self.fork_again_at = 0.0
