"""What the store alone can do: tasks per second through each change of their lives, recovery, and disk given back.

    python -m benchmarks.store_alone [--tasks 1000000] [--batch 200] [--rounds 5] [--folder FOLDER]

No server, no client, no process per task: the upper limit of what a durable server can reach. Every batch is committed
with fsync. Beside it the floor: the same number of bytes appended to a plain file, with fdatasync for every batch. The
two take turns, batch by batch, so that the ratio means something on a machine that others use too.

Runs in: any Python that has Palpable installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, time

from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, StoredResult, TaskRow, TaskState

POLICY = '{"isolation":"worker","timeout_seconds":600.0,"retries":3}'
FUNCTION_KEY = "5f" * 32
PAYLOAD = b"p" * 120
RESULT = b"r" * 40
BARS = {
    "add": "at least 30,000/s",
    "first chunk, seconds": "1,000,000 tasks: at most 1.5 s",
    "all chunks, seconds": "1,000,000 tasks: at most 6 s",
    "file after tidying, MB": "at most 50 MB",
}


def added(numbers: range) -> Batch:
    now = time()
    rows = [TaskRow(n, secrets.token_hex(16), "module.function", "call", FUNCTION_KEY, POLICY, 0, now) for n in numbers]
    return Batch(
        functions={FUNCTION_KEY: b"f" * 800},
        added=[(row, PAYLOAD) for row in rows],
        states=[TaskState(number, "ready") for number in numbers],
    )


def started(numbers: range) -> Batch:
    now = time()
    return Batch(states=[TaskState(number, "running", attempt=1, boot=1, started_at=now) for number in numbers])


def _ends(numbers: range, is_taken: bool) -> list[TaskState]:
    now = time()
    facts = {"exit_status": 0, "cpu_seconds": 0.00123, "peak_memory_bytes": 12_345_678, "is_taken": is_taken}
    values = {"outcome": "succeeded", "attempt": 1, "boot": 1, "started_at": now, "finished_at": now + 1} | facts
    return [TaskState(number, "succeeded", **values) for number in numbers]  # type: ignore[arg-type]


def finished(numbers: range) -> Batch:
    results = [(number, StoredResult(RESULT)) for number in numbers]
    return Batch(states=_ends(numbers, False), results=results, requests_done=list(numbers))


def taken(numbers: range) -> Batch:
    return Batch(states=_ends(numbers, True), results_taken=list(numbers))


def forgotten(numbers: range) -> Batch:
    return Batch(forgotten=list(numbers))


PHASES: dict[str, tuple[Callable[[range], Batch], int]] = {
    # With the bytes per task that the floor appends: about what is new to the store.
    "add": (added, 400),
    "start": (started, 40),
    "finish": (finished, 150),
    "take": (taken, 80),
    "forget": (forgotten, 10),
}


def run_phase(
    store: SqliteStore, make: Callable[[range], Batch], task_bytes: int, tasks: int, size: int
) -> list[float]:
    """Return tasks per second of the store, and its part of the floor's."""
    store_seconds = floor_seconds = 0.0
    with open(f"{store.path}.floor", "wb", buffering=0) as floor:
        for start in range(1, tasks + 1, size):
            numbers = range(start, min(start + size, tasks + 1))
            batch, data = make(numbers), os.urandom(task_bytes * len(numbers))
            before = perf_counter()
            store.write(batch)
            between = perf_counter()
            floor.write(data)
            os.fdatasync(floor.fileno())
            store_seconds += between - before
            floor_seconds += perf_counter() - between
    os.unlink(floor.name)
    return [tasks / store_seconds, floor_seconds / store_seconds]


def measure(folder: Path, tasks: int, size: int) -> Iterator[tuple[str, list[float]]]:
    """Run all phases once in a new store."""
    path = folder / "jobs.db"
    store = SqliteStore(path)
    for name, (make, task_bytes) in PHASES.items():
        if name == "start":
            yield from recovery(store)
        yield name, run_phase(store, make, task_bytes, tasks, size)
    before = store.size_bytes()
    started_at, steps, longest = perf_counter(), 0, 0.0
    is_more = True
    while is_more:
        step_at = perf_counter()
        is_more = store.tidy()
        longest, steps = max(longest, perf_counter() - step_at), steps + 1
    yield "tidying, seconds", [perf_counter() - started_at]
    yield "tidying, longest step, ms", [longest * 1000]
    yield "file before tidying, MB", [before / 1e6]
    yield "file after tidying, MB", [store.size_bytes() / 1e6]
    store.close()
    for file in folder.iterdir():
        file.unlink()


def recovery(store: SqliteStore) -> Iterator[tuple[str, list[float]]]:
    """Read all tasks as a server does when it starts, and drop them."""
    before, cpu_before = perf_counter(), process_time()
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunks = store.unfinished()
    next(chunks)
    yield "first chunk, seconds", [perf_counter() - before]
    for _ in chunks:
        pass
    yield "all chunks, seconds", [perf_counter() - before]
    yield "all chunks, CPU seconds", [process_time() - cpu_before]
    yield "memory for reading, MB", [(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1024]


def busy_loop(store: SqliteStore, size: int) -> list[float]:
    """Return the milliseconds per added batch alone, and beside a thread that never lets go of the GIL by itself."""
    stopping = threading.Event()

    def compute() -> None:
        while not stopping.is_set():
            pass

    first, found = 1, []
    for is_busy in (False, True):
        thread = threading.Thread(target=compute)
        if is_busy:
            thread.start()
        durations = []
        for _ in range(20):
            batch = added(range(first, first + size))
            first += size
            before = perf_counter()
            store.write(batch)
            durations.append((perf_counter() - before) * 1000)
        found.append(median(durations))
        stopping.set()
        if is_busy:
            thread.join()
        stopping.clear()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="on the disk to measure; default: the folder for temporary files")
    chosen = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for _ in range(chosen.rounds):
            for name, values in measure(Path(folder), chosen.tasks, chosen.batch):
                found.setdefault(name, []).append(values)
        store = SqliteStore(Path(folder) / "busy.db")
        alone, beside = busy_loop(store, chosen.batch)
        store.close()
    print(f"{chosen.tasks} tasks in batches of {chosen.batch}, {chosen.rounds} rounds: median (minimum to maximum)\n")
    print("| | value | part of the floor | bar |\n|---|---|---|---|")
    for name, rounds in found.items():
        columns = [
            f"{median(column):,.{digits}f} ({min(column):,.{digits}f} to {max(column):,.{digits}f})"
            for column, digits in zip(zip(*rounds, strict=True), (0 if name in PHASES else 2, 2), strict=False)
        ]
        unit = f"{name}, tasks/s" if name in PHASES else name
        print(f"| {unit} | {columns[0]} | {columns[1] if len(columns) > 1 else ''} | {BARS.get(name, '')} |")
    print(f"\nOne added batch: {alone:.2f} ms alone, {beside:.1f} ms beside a thread that computes all the time.")


if __name__ == "__main__":
    main()
