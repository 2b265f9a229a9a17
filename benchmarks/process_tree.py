"""What a tree of processes holds and uses, read from `/proc`.

psutil counts CPU time in steps of 10 ms for each process, which is too coarse for an idle server; the scheduler's own
account has nanoseconds.
"""

from __future__ import annotations

import threading
from pathlib import Path
from time import sleep

MEGABYTE = 2**20


def children(pid: int) -> list[int]:
    """The living children of a process (of its main thread and the others); zombies are not counted."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in file.read_text().split()]
        except OSError:
            continue  # that thread or process has ended meanwhile
    return [child for child in found if is_alive(child)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tree(roots: list[int]) -> list[int]:
    """The roots and all their living descendants, each once."""
    found: dict[int, None] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = None
            waiting += children(pid)
    return list(found)


def cpu_seconds(pid: int) -> float:
    """CPU time used so far by all living threads of a process."""
    nanoseconds = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            nanoseconds += int(file.read_text().split()[0])
        except OSError:
            continue
    return nanoseconds / 1e9


def idle_cpu_seconds(roots: list[int], seconds: float) -> float:
    """CPU time the trees use within the next `seconds`. A process that starts meanwhile counts whole."""
    before = {pid: cpu_seconds(pid) for pid in tree(roots)}
    sleep(seconds)
    return sum(cpu_seconds(pid) - before.get(pid, 0.0) for pid in tree(roots))


def _memory_kilobytes(pid: int, file: str, key: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    except OSError:
        pass  # it has ended meanwhile
    return 0


def resident_megabytes(pid: int) -> float:
    """Resident set: shared pages count whole, in every process that maps them."""
    return _memory_kilobytes(pid, "status", "VmRSS:") * 1024 / MEGABYTE


def peak_resident_megabytes(pid: int) -> float:
    """The largest resident set it ever had."""
    return _memory_kilobytes(pid, "status", "VmHWM:") * 1024 / MEGABYTE


def proportional_megabytes(pids: list[int]) -> float:
    """Proportional set: a page that n processes share counts 1/n in each, so that a sum counts it once."""
    return sum(_memory_kilobytes(pid, "smaps_rollup", "Pss:") for pid in pids) * 1024 / MEGABYTE


class PeakCounter:
    """Counts, every few milliseconds in a thread of its own, how many processes live below the roots."""

    def __init__(self, roots: list[int], interval_seconds: float = 0.004) -> None:
        self.roots = roots
        self.interval_seconds = interval_seconds
        self.at_rest = self._count()
        self.peak = 0
        self.samples = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _count(self) -> int:
        return len(tree(self.roots)) - len(self.roots)

    def _sample(self) -> None:
        while not self._is_over.wait(self.interval_seconds):
            self.peak = max(self.peak, self._count())
            self.samples += 1

    def __enter__(self) -> PeakCounter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
