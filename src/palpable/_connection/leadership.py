"""Which of the threads that wait on one connection reads its socket.

One reads for all: the leader. So a call that waits alone costs no switch of threads: it sends, reads, and returns.
The others, the followers, sleep; the leader wakes each when what it waits for is there. A leader that is done hands
over to a follower, or, when there is none and results are still expected, to the background thread.

Invariant: whenever there are followers, somebody reads, or one of them is on its way to. It holds because every
thread that leaves looks, under the lock, whether anybody reads now, and wakes a follower if not; also a follower that
was woken to lead and finds that it is done, times out, or is interrupted. (MySQL's group commit and Boost's
leader/followers thread pools work alike; here the background thread is a follower of last resort.)
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable
from typing import Any

from palpable._connection.waiting import Blocked, Watched


class Role(enum.Enum):
    """What a thread is to do that waits."""

    LEADER = enum.auto()
    FOLLOWER = enum.auto()
    NESTED = enum.auto()
    """It leads already, further up its own stack: a signal handler or a `__del__` was called while it reads. It reads
    here too, or nobody would."""


class Leadership:
    """Who leads and who follows. Methods are safe to call from every thread, and again after an interrupt."""

    def __init__(self, *, by_anyone: bool) -> None:
        # Reentrant: the garbage collector may run somebody's `__del__` here, and that may use the connection.
        self._lock = threading.RLock()
        self._by_anyone = by_anyone
        self._leader: object = None
        self._leader_thread = 0
        self._followers: dict[Blocked, Iterable[Watched]] = {}
        self.background: object = None
        """What stands for the background thread."""

    @property
    def is_vacant(self) -> bool:
        """Whether nobody reads."""
        return self._leader is None

    @property
    def has_followers(self) -> bool:
        """Whether threads wait that do not read."""
        return bool(self._followers)

    @property
    def is_in_background(self) -> bool:
        """Whether the background thread reads."""
        return self._leader is not None and self._leader is self.background

    def claim(self, blocked: Blocked, watched: Iterable[Watched], *, may_lead: bool) -> Role:
        """Make the caller leader if nobody is, else a follower, who is to look again whether it is done, and sleep.

        Args:
            may_lead: False: there is nothing to read from. A leader steps down.
        """
        me = threading.get_ident()
        with self._lock:
            leader = self._leader
            if leader is blocked and not may_lead:
                self._leader = leader = None
            if leader is blocked:
                return Role.LEADER
            if leader is None and may_lead and self._by_anyone:
                # The thread first: a signal handler that comes between the two must not think that it leads.
                self._leader_thread = me
                self._leader = blocked
                return Role.LEADER
            if leader is not None and self._leader_thread == me and may_lead:
                return Role.NESTED
            if blocked not in self._followers:
                self._followers[blocked] = watched
                for one in watched:
                    one.watchers = (*one.watchers, blocked)
        return Role.FOLLOWER

    def sleep(self, blocked: Blocked, timeout_seconds: float | None) -> None:
        """Sleep as a follower, at most so long.

        A signal handler may come while its thread holds the lock, and wait here. Whoever reads needs the lock to hand
        over, so it is let go meanwhile, as by a `threading.Condition`. Where a handler can come in `claim` and `leave`,
        nothing was looked at that is changed afterwards.
        """
        lock: Any = self._lock
        if not lock._is_owned():
            blocked.sleep(timeout_seconds)
            return
        held = lock._release_save()
        try:
            blocked.sleep(timeout_seconds)
        finally:
            lock._acquire_restore(held)

    def leave(self, blocked: Blocked) -> bool:
        """The caller no longer waits; return whether nobody is left to read."""
        with self._lock:
            watched = self._followers.get(blocked)
            if watched is not None:
                for one in watched:
                    one.watchers = tuple(watcher for watcher in one.watchers if watcher is not blocked)
                self._followers.pop(blocked, None)
            if self._leader is blocked:
                self._leader = None
            return self._hand_over()

    def claim_in_background(self) -> bool:
        """Make the background thread leader, if nobody is and no thread that waits could be."""
        with self._lock:
            if self._leader is not None or (self._followers and self._by_anyone):
                return False
            self._leader_thread = threading.get_ident()
            self._leader = self.background
            return True

    def leave_in_background(self) -> None:
        """The background thread stops reading."""
        with self._lock:
            if self._leader is self.background:
                self._leader = None
            self._hand_over()

    def wake_all(self) -> None:
        """Let every follower look whether it can go on."""
        with self._lock:
            for blocked in self._followers:
                blocked.wake()

    def _hand_over(self) -> bool:
        if self._leader is not None:
            return False
        if self._followers and self._by_anyone:
            # The latest: an earlier one may be further down the stack of the same thread, interrupted by a signal
            # handler that waits here too. It can't lead before that one is done.
            next(reversed(self._followers)).wake()
            return False
        return True
