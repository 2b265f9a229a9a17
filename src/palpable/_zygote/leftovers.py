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
    deadline = time.monotonic() + timeout_seconds
    while found := _marked(mark):
        killed.update(found)
        for pid in found:
            _kill(pid, mark, max(0.0, deadline - time.monotonic()))
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


def _kill(pid: int, mark: bytes, timeout_seconds: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if not _is_marked(pid, mark):  # asked once more, now that the pid is held
            return
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(timeout_seconds * 1000)
    finally:
        os.close(pidfd)
