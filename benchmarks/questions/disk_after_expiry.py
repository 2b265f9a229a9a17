"""Does a store shrink again, without a stop, when its tasks have expired?"""

from __future__ import annotations

import os
from time import perf_counter, sleep
from typing import Any

from benchmarks.contender import WORKERS, Contender
from benchmarks.process_tree import peak_resident_megabytes
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.store_folder import store_folder
from benchmarks.stored_tasks import fill_with_finished_tasks

SMALL_MB = 50.0
LIMIT_SECONDS = 100.0
RETENTION_SECONDS = 60.0


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    from palpable import Server

    store = os.path.join(store_folder(), "jobs.db")
    fill_with_finished_tasks(store, settings.stored_count)
    before = size_mb(store)
    started = perf_counter()
    with Server(num_workers=WORKERS, store=store, result_retention_seconds=RETENTION_SECONDS) as server:
        listening = perf_counter() - started
        pid = server.pid
        assert pid is not None
        while (size := size_mb(store)) >= SMALL_MB and perf_counter() - started < LIMIT_SECONDS:
            sleep(0.05)
        return {
            "after_mb": size,
            "before_mb": before,
            "seconds": perf_counter() - started,
            "listening_seconds": listening,
            "peak_mb": peak_resident_megabytes(pid),
            "count": settings.stored_count,
        }


def size_mb(store: str) -> float:
    """What the file and its log take."""
    files = [f"{store}{suffix}" for suffix in ("", "-wal", "-shm")]
    return sum(os.path.getsize(file) for file in files if os.path.exists(file)) / 2**20


QUESTION = Question(
    name="disk_after_expiry",
    title="The disk after a million tasks",
    text=(
        "A store with `count` tasks that have ended and whose time is over, with their results; a server runs on it. "
        "What it takes on disk before, and what it comes down to while the server runs, within 100 s."
    ),
    metrics=(
        Metric("after_mb", "after, MB", 1),
        Metric("before_mb", "before, MB", 1),
        Metric("seconds", "s until below 50 MB", 1),
        Metric("listening_seconds", "s until it listens", 2),
        Metric("peak_mb", "server at most, MB", 1),
    ),
    bars=(Bar("1,000,000 expired tasks, MB on disk", "after_mb", "palpable-start", at_most=SMALL_MB),),
    measure=measure,
    timeout_seconds=240.0,
)
