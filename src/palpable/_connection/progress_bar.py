"""A progress bar for bulk calls: on a terminal and in a notebook; nothing in a log file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar; gives a function to call with the number of params that are done."""
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

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
        # Else what the caller prints would go to the bar's terminal, and not into the file or pipe it is meant for.
        redirect_stdout=console.is_jupyter or sys.stdout.isatty(),
    )
    with bar:
        row = bar.add_task(name, total=total)

        def show(done: int) -> None:
            bar.update(row, completed=done)

        yield show
