"""The clients of the storm: started, killed, replaced, and told to finish.

Runs in: the storm.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from stress.storm.place import Place

FINISH_SECONDS = 100.0
"""So long clients may take to ask for what they were not told yet."""


class ClientCrew:
    """Processes that run `client_process`.

    Args:
        folder: of the storm.
        seed: of the storm; each process gets one of its own.
        places: where they connect to, by chance.
    """

    def __init__(self, folder: Path, seed: int, places: list[Place], count: int) -> None:
        self._folder = folder
        self._seed = seed
        self._places = places
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._generations: dict[str, int] = {f"c{number}": 0 for number in range(count)}

    def start(self) -> None:
        """Start all."""
        for name in self._generations:
            self._start(name)

    def replace_one(self, rng: random.Random) -> str:
        """kill -9 one, start another in its place, and return its name."""
        name = rng.choice(sorted(self._processes))
        self._processes[name].kill()
        self._processes[name].wait()
        self._start(name)
        return name

    def failed(self) -> list[str]:
        """Return the names of those that ended by themselves before they were told to."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def finish(self) -> list[str]:
        """Tell all to finish; return what is to be said of those that did not, or failed."""
        (self._folder / "finish").touch()
        deadline = time.monotonic() + FINISH_SECONDS
        problems = []
        for name, process in self._processes.items():
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                problems.append(f"client {name} did not finish in {FINISH_SECONDS:g} s")
            else:
                if code:
                    problems.append(f"client {name} failed: {self._last_words(name)}")
        self._processes.clear()
        return problems

    def close(self) -> None:
        """Kill those that are left. Safe to call twice."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def _start(self, name: str) -> None:
        self._generations[name] += 1
        seed = f"{self._seed}-{name}-{self._generations[name]}"
        command = [sys.executable, "-m", "stress.storm.client_process", str(self._folder), name, seed, str(os.getpid())]
        with open(self._folder / f"client-{name}.err", "ab") as errors:
            self._processes[name] = subprocess.Popen(
                [*command, *(place.word() for place in self._places)],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def _last_words(self, name: str) -> str:
        lines = (self._folder / f"client-{name}.err").read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) if lines else "without a word"
