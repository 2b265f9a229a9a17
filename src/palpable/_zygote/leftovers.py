"""What is left of a server that was killed: its task processes and whatever they started.

Runs in: a server that starts on the store of one that ended. Zygotes and task processes end with their server, by the
kernel's hand; but what a task started in a session of its own lives on, and nobody is its subreaper any more. The tasks
are about to run again, and must not meet it. It is known by a variable in its environment, which it has from its zygote
(see `strays.MARK` for what that shows).
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from palpable._zygote.strays import TRACKER_SECONDS, is_tracker

GRACE_SECONDS = 2.0
"""How long they may take to end by themselves. A zygote whose server died kills what its task processes leave behind,
also what removed the variable from its environment, and is the only one who still knows of that."""
SERVER_VARIABLE = "PALPABLE_SERVER_ID"
"""In the environment of a zygote and all that descends from it: the id of the server."""


def end_leftovers(server_id: str, timeout_seconds: float = 10.0) -> int:
    """Kill every process of an earlier start of this server, and return when they are gone; return how many there were.

    Again and again, until none is found: one that is being killed may have forked just before. A pidfd, not a pid, is
    what is killed: the pid might have been given to another process since the look at its environment.

    Raises:
        TimeoutError: some are still there; one can hang in the kernel, on a dead network disk.
    """
    mark = f"{SERVER_VARIABLE}={server_id}".encode()
    killed: set[int] = set()
    now = time.monotonic()
    grace_until, deadline = now + GRACE_SECONDS, now + timeout_seconds
    while found := _marked(mark):
        killed.update(found)
        for pid in sorted(found, key=is_tracker):  # those come last (see `strays`)
            _end(pid, mark, grace_until, deadline)
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"these processes of the server before this one do not end: {sorted(found)}; "
                f"its tasks can't be run again beside them"
            )
    return len(killed)


def _marked(mark: bytes) -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _is_marked(int(entry), mark)]


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # of a zombie: empty
            return pid != os.getpid() and mark in file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def _end(pid: int, mark: bytes, grace_until: float, deadline: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if not _is_marked(pid, mark):  # asked once more, now that the pid is held
            return
        if is_tracker(pid):
            grace_until = max(grace_until, min(deadline, time.monotonic() + TRACKER_SECONDS))
        if not _ends_until(pidfd, grace_until):
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _ends_until(pidfd, deadline)
    finally:
        os.close(pidfd)


def _ends_until(pidfd: int, moment: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, moment - time.monotonic()) * 1000))
