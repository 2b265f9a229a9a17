"""The life that every actor shares: start, stop, join, close."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Servant:
    """Something that is started, told to stop, waited for, and released.

    Each call may be made twice, or out of order, and then does nothing: stopping before starting is allowed.
    `with` starts; at its end it stops, joins and closes.
    """

    def start(self) -> Self:
        """Begin. Returns self."""
        return self

    def stop(self) -> None:
        """Ask for the end; return at once."""

    def join(self) -> None:
        """Wait for the end."""

    def close(self) -> None:
        """Release everything that is still held."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
            self.join()
        finally:
            self.close()
