"""What a server is told at its start, carried to the server process as one message."""

from __future__ import annotations

import math
import os
from typing import Any, Literal

import msgspec

from palpable._wire.framing import DEFAULT_LIMIT_BYTES


class ServerSettings(msgspec.Struct, kw_only=True):
    """Everything the server process needs to know. Durations in seconds."""

    address: tuple[str, int] | str
    family: Literal["AF_INET", "AF_UNIX"]
    authkey: bytes
    logging_folder: str
    private_folder: str
    """Made for this server alone: the spool files are in it, and whatever was given no place of its own."""
    server_id: str
    num_workers: int
    isolation: Literal["task", "worker"] = "task"
    preload: list[str] = []
    task_timeout_seconds: float | None = 10_800.0
    result_retention_capacity: int = 100_000
    result_retention_seconds: float = 60.0
    kill_grace_seconds: float = 3.0
    max_tasks_per_process: int | None = None
    max_payload_bytes: int = DEFAULT_LIMIT_BYTES
    output_limit_bytes: int = 1 << 20
    tls: tuple[str, str] | None = None
    """Certificate file and key file."""
    task_options: dict[str, Any] = {}
    """What tasks get whose submitter left it open, by field of `TaskOptions`."""
    store_path: str | None = None
    """The database that tasks are kept in; None: memory."""
    drain_seconds: float = 0.0
    """How long what runs may take to end when the server is told to stop."""
    sys_path: list[str] = []
    """Where task processes look for modules."""

    def __post_init__(self) -> None:
        # What travels has no tuples. Options are compared and kept in sets, which lists can't be.
        self.task_options = {
            name: tuple(value) if isinstance(value, list) else value for name, value in self.task_options.items()
        }

    @property
    def spool_folder(self) -> str:
        """Where the output of running tasks is."""
        return self.private_folder + "/spool"


def usable_cores() -> int:
    """Return how many cores this process may use: affinity and the cgroup's CPU quota included; at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores, _cgroup_quota()))


def _cgroup_quota() -> int:
    """Return the CPU quota of this process' cgroup (version 2 or 1), rounded up; a large number if there is none."""
    try:
        with open("/proc/self/cgroup") as file:
            folders = {line.strip().split(":", 2)[2] for line in file}
    except OSError:
        return 1 << 20
    cores = 1 << 20
    for folder in {"/", *folders}:
        base = "/sys/fs/cgroup" + folder.rstrip("/")
        try:
            with open(f"{base}/cpu.max") as file:
                quota, period = file.read().split()[:2]
            if quota != "max":
                cores = min(cores, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):
            pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") as file:
            quota_us = int(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
            period_us = int(file.read())
        if quota_us > 0 and period_us > 0:
            cores = min(cores, math.ceil(quota_us / period_us))
    except (OSError, ValueError):
        pass
    return cores
