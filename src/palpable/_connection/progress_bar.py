"""A progress bar for bulk calls: on a terminal and in a notebook; nothing where the output goes to a log."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

REDRAW_SECONDS = 0.1
"""A bar is drawn no more often: nobody could read it, and a million small calls would cost more to draw than to do."""


class Drawing(Protocol):
    """Where a bar is drawn."""

    def draw(self, done: int) -> None:
        """Show that so many params are done."""

    def close(self) -> None:
        """Leave the bar as it is."""


@contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """Show a bar while the body runs; gives a function to call with the number of params that are done.

    Gives None where nothing is shown.

    Args:
        total: how many there are; None: not known.
    """
    drawing = _drawing(name, total)
    if drawing is None:
        yield None
        return
    latest, drawn, drawn_at, is_over = 0, 0, monotonic(), False

    def show(done: int) -> None:
        nonlocal latest, drawn, drawn_at
        latest, now = done, monotonic()
        # After an error, results may come in for a bar that is over.
        if now - drawn_at >= REDRAW_SECONDS and not is_over:
            drawn, drawn_at = done, now
            drawing.draw(done)

    try:
        yield show
    finally:
        is_over = True
        if drawn != latest:
            drawing.draw(latest)
        drawing.close()


def _drawing(name: str, total: int | None) -> Drawing | None:
    if is_in_notebook():
        from palpable._connection.notebook_bar import NotebookBar

        return NotebookBar(name, total)
    # Asked here, not by `rich`, which takes the output of a build server that wants colours for a terminal.
    return _TerminalBar(name, total) if _is_terminal(sys.stderr) else None


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def is_in_notebook() -> bool:
    """Whether this is the kernel of a notebook: Jupyter, or one that works as it does."""
    get_shell = getattr(builtins, "get_ipython", None)
    shell = type(get_shell()) if callable(get_shell) else None
    if shell is None:
        return False
    # IPython in a terminal has another shell.
    return shell.__name__ == "ZMQInteractiveShell" or shell.__module__.startswith("google.colab")


class _TerminalBar:
    def __init__(self, name: str, total: int | None) -> None:
        # Here, because it takes longer to import than everything else of a client.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            # Else what the caller prints would go to the bar's terminal, and not into the file or pipe it is meant for.
            redirect_stdout=_is_terminal(sys.stdout),
        )
        self._row = self._progress.add_task(name, total=total)
        self._progress.start()

    def draw(self, done: int) -> None:
        self._progress.update(self._row, completed=done)

    def close(self) -> None:
        self._progress.stop()
