"""Watching processes: which ones this test run has started, and whether they are gone.

Every process that descends from this test run, however it got away, was born with `RUN_MARK` in its environment.
A process forked from a marked one keeps the environment it was born with in `/proc/PID/environ`, whatever it does to
its own `os.environ` later. So a stray is found even when it left its session, its group and its parent.
"""

from __future__ import annotations

import os
import secrets

import psutil

from support.wait import wait_until

RUN_MARK = "PALPABLE_TEST_RUN"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several test processes side by side, each of which may look for its own only.
    os.environ[RUN_MARK] = secrets.token_hex(8)
run_id = os.environ.setdefault(RUN_MARK, secrets.token_hex(8))


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_gone(pids: list[int], timeout_seconds: float = 10.0) -> None:
    """Return when none of `pids` is alive."""
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)], timeout_seconds)


def marked_pids() -> set[int]:
    """The pids of all processes with the mark of this test run, this process excepted."""
    mark = f"{RUN_MARK}={run_id}".encode()
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read():
                        found.add(int(entry))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def descendants() -> set[int]:
    """The pids of this process's children and their children, zombies too, and of all that bear the mark."""
    return {process.pid for process in psutil.Process().children(recursive=True)} | marked_pids()


def describe(pid: int) -> str:
    """One line about a process, for the message of a failed test."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return f"{pid} (parent {process.ppid()}, {process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"{pid} (gone meanwhile)"


def server_process() -> psutil.Process:
    """The server process started by this process; there must be exactly one."""
    children = [child for child in psutil.Process().children() if "palpable" in " ".join(child.cmdline())]
    assert len(children) == 1, f"expected one server process, found {[describe(child.pid) for child in children]}"
    return children[0]


def zygote_processes() -> list[psutil.Process]:
    """The zygotes of that server."""
    return [child for child in server_process().children() if child.status() != psutil.STATUS_ZOMBIE]


def task_processes() -> list[psutil.Process]:
    """The children of its zygotes: task processes, busy and idle ones."""
    found = []
    for zygote in zygote_processes():
        try:
            found += zygote.children()
        except psutil.NoSuchProcess:
            continue
    return found
