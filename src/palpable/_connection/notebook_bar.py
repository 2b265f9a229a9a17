"""A progress bar in a notebook: HTML in the output of the cell, drawn again in place.

Needs what every notebook has. (`rich` draws in a notebook with ipywidgets, and shows nothing where they are not
installed.)
"""

from __future__ import annotations

from html import escape
from time import monotonic
from typing import Any


class NotebookBar:
    """One bar. See `progress_bar.Drawing`."""

    def __init__(self, name: str, total: int | None) -> None:
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]  # it is what runs us

        self._name = name
        self._total = total
        self._started_at = monotonic()
        self._handle: Any = display(self._drawn(0), raw=True, display_id=True)

    def draw(self, done: int) -> None:
        self._handle.update(self._drawn(done), raw=True)

    def close(self) -> None:
        pass

    def _drawn(self, done: int) -> dict[str, str]:
        """Return the bar in the forms a notebook chooses from: HTML, and text for who keeps only that."""
        seconds = monotonic() - self._started_at
        counts = f"{done}/{'?' if self._total is None else self._total}"
        times = f"{_clock(seconds)} elapsed"
        if self._total is not None and 0 < done < self._total:
            times += f", {_clock(seconds * (self._total - done) / done)} left"
        values = "" if self._total is None else f' value="{done}" max="{max(self._total, 1)}"'
        return {
            "text/plain": f"{self._name}: {counts}, {times}",
            "text/html": f"<div>{escape(self._name)} <progress{values}></progress> {counts}, {times}</div>",
        }


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
