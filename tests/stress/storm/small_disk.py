"""A disk of its own for the store, so small that it can be filled: a tmpfs, mounted where that is allowed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SIZE_MIB = 96
CHUNK_BYTES = 1 << 20


class SmallDisk:
    """A folder on a disk of `SIZE_MIB`, or an ordinary folder where nothing can be mounted.

    Attributes:
        folder: where files go.
        why_not: why it is an ordinary folder, and can't be filled; "" if it can.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.why_not = ""
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0700", "palpable-storm", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                self.why_not = f"mount: {done.stderr.strip()}"
        except OSError as error:
            self.why_not = f"mount can't be run: {error}"

    def fill(self, leave_bytes: int) -> None:
        """Take all the room but so much."""
        room = os.statvfs(self.folder)
        left = room.f_bavail * room.f_frsize - leave_bytes
        with open(self._ballast, "wb", buffering=0) as file:
            try:
                while left > 0:
                    left -= file.write(b"\0" * min(CHUNK_BYTES, left))
            except OSError:  # full: somebody else wrote meanwhile
                pass

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def close(self) -> None:
        """Unmount it, if it was mounted; what was on it is gone then."""
        if not self.why_not:
            subprocess.run(["umount", str(self.folder)], check=True)
            self.why_not = "unmounted"
