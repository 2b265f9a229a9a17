"""Finding stored functions that no task refers to, a little at a time.

A task refers to its function as long as its request is stored: it may be run, or be run again. No index leads from
functions to tasks, as it would cost every task a write; instead the tasks are read, some thousand in a step, from the
first to the last. New tasks have higher numbers, so none is missed.
"""

from __future__ import annotations

import sqlite3
from typing import Final

STEP_ROWS: Final = 4_000
ROWS_PER_REMOVAL: Final = 8

_STEP_END: Final = "SELECT sequence FROM requests WHERE sequence > ? ORDER BY sequence LIMIT 1 OFFSET ?"
_KEYS: Final = """
    SELECT DISTINCT function_key FROM requests CROSS JOIN tasks USING (sequence)
    WHERE sequence > ? AND sequence <= ?"""


class FunctionSweep:
    """Runs in: the writer thread, so nothing is written during a step."""

    def __init__(self, stored: set[str]) -> None:
        self._stored = stored
        """The keys of all stored functions; the owner's set, which it adds to."""
        self._candidates: set[str] | None = None
        """Keys that no task was seen to refer to; None while no sweep is under way."""
        self._last = 0
        self._rows_read = 0
        self._removals = 1
        self._cost = 0

    def note_writing(self, used: set[str], removals: int) -> None:
        """Hear of a batch: which functions its tasks use, and how many requests it removed."""
        self._removals += removals
        if self._candidates is not None:
            self._candidates -= used

    def step(self, connection: sqlite3.Connection) -> bool:
        """Read some tasks; at the end remove what no one refers to. Return whether there is more to do."""
        if self._candidates is None:
            # A sweep reads all tasks. It has to be earned: at most some rows are read for each request removed.
            if not self._stored or not self._removals or self._removals * ROWS_PER_REMOVAL < self._cost:
                return False
            self._candidates, self._last, self._rows_read, self._removals = set(self._stored), 0, 0, 0
        end = connection.execute(_STEP_END, (self._last, STEP_ROWS - 1)).fetchone()
        last = end[0] if end else 1 << 62
        self._candidates -= {key for (key,) in connection.execute(_KEYS, (self._last, last))}
        self._rows_read += STEP_ROWS if end else 0
        self._last = last
        if end and self._candidates:
            return True
        for key in self._candidates:
            connection.execute("DELETE FROM functions WHERE key = ?", (key,))
        self._stored -= self._candidates
        self._candidates, self._cost = None, self._rows_read
        return False
