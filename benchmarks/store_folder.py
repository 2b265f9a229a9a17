"""Where the stores of a measurement lie: on a disk, since a commit in memory would measure nothing.

Runs in: the driver, which makes a folder for each measurement, and the measuring process, which uses it.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.contender import NotAvailable
from benchmarks.environments import ROOT

VARIABLE = "BENCHMARK_STORE_FOLDER"
PREFIX = ".bench-store-"
IN_MEMORY = ("tmpfs", "ramfs")

parent_folder = ROOT
"""Where the folders of the measurements are made. Set by the driver."""


def store_folder() -> str:
    """Return the folder of this measurement.

    Raises:
        NotAvailable: it is in memory.
    """
    folder = os.environ[VARIABLE]
    kind = filesystem_of(Path(folder))
    if kind in IN_MEMORY:
        raise NotAvailable(f"the folder for stores is on {kind}; name one on a disk with --folder")
    return folder


def filesystem_of(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, as the kernel names it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        point = words[4]
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, words[words.index("-") + 1]
    return kind
