"""An SQL statement that takes many rows at once.

`executemany` lets go of the GIL and takes it again for every row. When the server's loop is busy, each time may cost
the writer thread a whole switch interval (5 ms by default): a batch of 200 rows took 100 ms that takes 0.8 ms alone.
One statement with the rows as its VALUES is one step for SQLite, and runs beside the loop on another core.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

LARGEST: Final = 256


class RowStatement:
    """A statement with `{rows}` where a list of rows belongs: `(?, ?), (?, ?), ...`.

    The lists have lengths that are powers of two, so that few statements are prepared, and all of them stay in the
    cache. The last rows of a list may be all NULL: the statement has to leave those out.
    """

    def __init__(self, sql: str, width: int) -> None:
        row = f"({', '.join('?' * width)})"
        self._filler = (None,) * width
        self._statements = {}
        length = 1
        while length <= LARGEST:
            self._statements[length] = sql.format(rows=", ".join([row] * length))
            length *= 2

    def run(self, connection: sqlite3.Connection, rows: Sequence[Iterable[Any]]) -> None:
        """Run it for all rows, some hundred at a time."""
        for start in range(0, len(rows), LARGEST):
            some = rows[start : start + LARGEST]
            length = 1 << (len(some) - 1).bit_length()
            values = list(chain.from_iterable(some))
            values.extend(self._filler * (length - len(some)))
            connection.execute(self._statements[length], values)
