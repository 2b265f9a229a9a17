"""The spool files: what a task process writes to its file descriptors 1 and 2 goes to one of them.

Runs in: the zygote.

One file for each live process, kept open and used again by a later one. The server reads and empties it in between.
"""

from __future__ import annotations

import os


class Spools:
    """Hands out spool files.

    Args:
        folder: where they are.
        name: what their names begin with.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._name = name
        self._free: list[tuple[str, int]] = []
        self._count = 0

    def take(self) -> tuple[str, int]:
        """Return name and file descriptor of a file that no live process uses.

        Raises:
            OSError: it can't be made.
        """
        if self._free:
            return self._free.pop()
        name = f"{self._name}-{self._count}.out"
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(os.path.join(self._folder, name), flags, 0o600)
        self._count += 1
        return name, fd

    def give_back(self, spool: tuple[str, int]) -> None:
        """The process that used it is gone."""
        self._free.append(spool)
