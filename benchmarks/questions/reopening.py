"""How long does a server that comes back take to go on with a million tasks?"""

from __future__ import annotations

import os
import threading
from time import perf_counter, sleep
from typing import Any

from benchmarks.contender import WORKERS, Contender
from benchmarks.process_tree import peak_resident_megabytes, resident_megabytes
from benchmarks.question import Bar, Metric, Question, Settings
from benchmarks.store_folder import store_folder
from benchmarks.stored_tasks import fill_with_ready_tasks

LIMIT_SECONDS = 100.0


def hold(path: str) -> None:
    """Say that the first task has begun; and hold the worker, so that the other tasks stay ready."""
    with open(path, "a"):
        pass
    sleep(LIMIT_SECONDS)


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    from palpable import Server

    folder = store_folder()
    store, mark = os.path.join(folder, "jobs.db"), os.path.join(folder, "begun")
    fill_with_ready_tasks(store, hold, (mark,), settings.stored_count)
    server = Server(num_workers=WORKERS, store=store)
    first: list[float] = []
    started = perf_counter()
    watch = threading.Thread(target=lambda: first.append(wait_for(mark, started)))
    watch.start()
    server.start()
    listening = perf_counter() - started
    pid = server.pid
    assert pid is not None
    watch.join()
    assert (server.recovered or {}).get("ready") == settings.stored_count, server.recovered
    answer = {
        "first_task_seconds": first[0],
        "listening_seconds": listening,
        "server_mb": resident_megabytes(pid),
        "peak_mb": peak_resident_megabytes(pid),
        "file_mb": os.path.getsize(store) / 2**20,
        "count": settings.stored_count,
    }
    server.close()
    return answer


def wait_for(path: str, started: float) -> float:
    while not os.path.exists(path):
        if perf_counter() - started > LIMIT_SECONDS:
            return float("inf")
        sleep(0.002)
    return perf_counter() - started


QUESTION = Question(
    name="reopening",
    title="Coming back to a full store",
    text=(
        "A store with `count` tasks that are ready, as a server leaves it that was killed; a server is started on it. "
        "Until its first task has begun, until it listens, and its resident memory then."
    ),
    metrics=(
        Metric("first_task_seconds", "s to the first task", 2),
        Metric("listening_seconds", "s until it listens", 2),
        Metric("server_mb", "server, MB", 1),
        Metric("peak_mb", "at most, MB", 1),
        Metric("file_mb", "file, MB", 1),
    ),
    bars=(
        Bar("1,000,000 ready tasks, s to the first", "first_task_seconds", "palpable-start", at_most=5),
        Bar("1,000,000 ready tasks, server, MB resident", "peak_mb", "palpable-start", at_most=700),
    ),
    measure=measure,
    timeout_seconds=180.0,
)
