"""Strays: descendants of an ended process that are still there.

Runs in: the zygote and the server; both are child subreapers, and so is every task process. A process whose parent
ended becomes the child of the nearest subreaper above it. So as long as a task process lives, all its descendants stay
below it, and when it ends, whatever it leaves becomes a child of the zygote: also what called `setsid`, changed its
process group, or forked twice. A child of the zygote that the zygote did not fork is a stray.

Once a zygote is gone too, the same becomes a child of the server, which may have other children (it can run in a
program of the user's). There `MARK` tells whose they are.

A child's pid cannot be given to another process before its parent waits for it, so killing by pid is safe here.

A resource tracker (of `multiprocessing`, or of loky in its image) is killed last, and only if it must be. It removes
what a program has left in shared memory, when all that use the tracker are gone; nobody else does, until the machine is
started again.

Linux only. Elsewhere there are no subreapers: only the process group of a task is killed, and `children` is empty.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Container, Iterable, Set
from contextlib import suppress

SIGKILL = 9
_READ_BYTES = 1 << 12
TRACKER_SECONDS = 1.0
"""How long a resource tracker is spared, from when its task has ended. It takes some 10 ms."""
_TRACKER = b".resource_tracker import main"
"""In the command line of every resource tracker."""
_LOOKED_AT_MAX = 1000
"""Among more processes no tracker is looked for."""


MARK = "PALPABLE_ZYGOTE"
"""A variable in the environment of a zygote and all that descends from it, unless a task took care to remove it. What
is forked and executes nothing keeps it in `/proc/PID/environ`, whatever it does to its own `os.environ`."""


class OwnChildren:
    """The children of the thread that made this object, for a process with one thread. One system call per look."""

    def __init__(self) -> None:
        self.fd, self._has_proc = -1, True
        try:
            self.fd = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # not Linux, or a kernel without CONFIG_PROC_CHILDREN
            self._has_proc = os.path.isdir("/proc/self/task")

    @property
    def is_blind(self) -> bool:
        """Whether there is no way to find the children."""
        return self.fd < 0 and not self._has_proc

    def has_more_than(self, count: int) -> bool:
        """Whether there are more children than that, zombies included. As cheap as can be."""
        if self.fd < 0:
            return self._has_proc and len(self.pids()) > count
        return self._read().count(b" ") > count

    def pids(self) -> set[int]:
        """The pids of all children, zombies included."""
        if self.fd < 0:
            return _children_by_stat() if self._has_proc else set()
        return set(map(int, self._read().split()))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _read(self) -> bytes:
        data = os.pread(self.fd, _READ_BYTES, 0)
        if len(data) < 2048:  # the kernel hands out a page at most at a time, so this was all
            return data
        pieces = [data]
        position = len(data)
        while piece := os.pread(self.fd, _READ_BYTES, position):
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)


def children() -> set[int]:
    """Return the pids of all children of this process, whichever thread started them, zombies included."""
    try:
        return _children_of("self")
    except FileNotFoundError:
        return _children_by_stat() if os.path.isdir("/proc/self/task") else set()


def _children_of(pid: int | str) -> set[int]:
    """Return the pids of all children of that process.

    Raises:
        FileNotFoundError: it is gone, or this kernel does not tell.
    """
    found: set[int] = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{thread}"):
                raise
    return found


def has_mark(pid: int, mark: str) -> bool:
    """Whether that process was started with `mark` in its environment.

    Raises:
        OSError: it can't be said now: no file descriptor is free.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def kill_strays(
    known: Container[int],
    *,
    find: Callable[[], Set[int]] = children,
    groups: Iterable[int] = (),
    give_up_seconds: float = 2.0,
) -> int:
    """Kill and reap every child that is not in `known`, and what becomes a child by that, until none is left.

    Resource trackers get the time to end by themselves, once all else is gone.

    Args:
        known: the pids of the children that are to stay.
        find: returns the pids of all children.
        groups: of processes that have ended and were not waited for, so that nobody else's can have these numbers. They
            are killed at once, with all that is forked meanwhile, unless that would kill a tracker.
        give_up_seconds: a killed process can hang in the kernel (a dead network disk); it is not waited for longer.

    Returns:
        How many were killed. Children that had ended already are reaped and not counted.
    """
    killed = 0
    hopeless: set[int] = set()
    now = time.monotonic()
    deadline, spared_until = now + give_up_seconds, now + TRACKER_SECONDS
    while strays := [pid for pid in find() if pid not in known and pid not in hopeless]:
        alive = [pid for pid in strays if not reap(pid)]
        is_sparing = time.monotonic() < spared_until
        trackers = {pid for pid in alive if is_sparing and is_tracker(pid)}
        if trackers and len(trackers) == len(alive):
            for pid in trackers:  # nobody is left who could use them
                reap(pid, max(0.0, spared_until - time.monotonic()))
            continue
        victims = [pid for pid in alive if pid not in trackers]
        spares_groups = is_sparing and (bool(trackers) or _has_tracker_below(victims))
        for pid in victims:
            try:
                os.kill(pid, SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
            except PermissionError:  # it runs as another user now
                hopeless.add(pid)
        for group in () if spares_groups else groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, SIGKILL)
        hopeless.update(pid for pid in victims if not reap(pid, max(0.0, deadline - time.monotonic())))
    return killed


def is_tracker(pid: int) -> bool:
    """Whether that process is a resource tracker, or says that it is. Not if that can't be told."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return _TRACKER in file.read(_READ_BYTES)
    except OSError:
        return False


def _has_tracker_below(pids: Iterable[int]) -> bool:
    """Whether one of the descendants of these processes is a resource tracker."""
    rest = list(pids)
    for _ in range(_LOOKED_AT_MAX):
        if not rest:
            return False
        with suppress(OSError):
            found = _children_of(rest.pop())
            if any(is_tracker(pid) for pid in found):
                return True
            rest.extend(found)
    return False


def reap(pid: int, timeout_seconds: float = 0.0) -> bool:
    """Reap that child, waiting for its end that long at most; return whether it is gone."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        if timeout_seconds > 0:
            _wait_for_end(pid, timeout_seconds)
        return bool(os.waitpid(pid, os.WNOHANG)[0])
    except ChildProcessError:
        return True


def _wait_for_end(pid: int, timeout_seconds: float) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(timeout_seconds * 1000)
    finally:
        os.close(pidfd)


def _children_by_stat() -> set[int]:
    """The slow way, for kernels without the `children` files: the parent of every process there is."""
    found = set()
    own = str(os.getpid()).encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    fields = file.read().rpartition(b") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[1] == own:
                found.add(int(entry))
    return found
