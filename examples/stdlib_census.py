"""A census of Python's own standard library: a task, and so a process of its own, for every file.

Some of these files do not parse, on purpose. Their tasks fail, and nothing else does.

    make demo
"""

from __future__ import annotations

import ast
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from palpable import Client, RunFunction, Server, TaskResult

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.BoolOp)
SHOWN = 10
IN_FLIGHT = 16
"""Files asked for at once: enough that no worker waits for the next."""


@dataclass
class Census:
    """What was counted in one file."""

    path: str
    lines: int
    functions: int
    classes: int
    branches: int


def count(path: Path) -> Census:
    """Parse one file and count. Runs in a task."""
    source = path.read_bytes()
    nodes = list(ast.walk(ast.parse(source, str(path))))
    return Census(
        path=str(path),
        lines=source.count(b"\n"),
        functions=sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        branches=sum(isinstance(node, BRANCHES) for node in nodes),
    )


def find_files(folder: Path) -> list[Path]:
    """Every source file of the standard library, what others have installed beside it left out."""
    return sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)


def count_all(client: Client, paths: list[Path]) -> Iterator[tuple[Path, TaskResult]]:
    """Yield each file with the result of its task. All threads share the client, and its one connection."""

    def count_in_task(path: Path) -> TaskResult:
        return client.run_procedure(RunFunction(count, path), waiting_seconds=-1)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        yield from zip(paths, pool.map(count_in_task, paths), strict=True)


def show_most_branching(console: Console, folder: Path, found: list[Census]) -> None:
    """Print the files with most branches, and the sums over all files."""
    table = Table(title=f"The {SHOWN} most branching files of {len(found)}")
    table.add_column("file")
    for name in ("branches", "functions", "classes", "lines"):
        table.add_column(name, justify="right")
    for census in sorted(found, key=lambda census: census.branches, reverse=True)[:SHOWN]:
        numbers = (census.branches, census.functions, census.classes, census.lines)
        table.add_row(str(Path(census.path).relative_to(folder)), *(f"{number:,}" for number in numbers))
    table.add_section()
    sums = [sum(getattr(census, name) for census in found) for name in ("branches", "functions", "classes", "lines")]
    table.add_row("all files", *(f"{number:,}" for number in sums))
    console.print(table)


def show_failures(console: Console, folder: Path, failures: list[tuple[Path, TaskResult]]) -> None:
    """Print every file whose task failed, with the reason."""
    table = Table(title=f"{len(failures)} files failed")
    table.add_column("file", overflow="fold")
    table.add_column("reason", overflow="fold")
    for path, result in failures:
        reason = result.data.msg if isinstance(result.data, SyntaxError) else str(result.data)
        table.add_row(str(path.relative_to(folder)), f"{type(result.data).__name__}: {reason}")
    console.print(table)


def main() -> None:
    console = Console()
    folder = Path(sysconfig.get_path("stdlib"))
    paths = find_files(folder)
    results: list[tuple[Path, TaskResult]] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Server() as server, server.client() as client, Progress(*columns, console=console) as progress:
        start = time.perf_counter()
        all_counts = count_all(client, paths)
        for path_and_result in progress.track(all_counts, total=len(paths), description="a task per file"):
            results.append(path_and_result)
        elapsed_seconds = time.perf_counter() - start
    show_most_branching(console, folder, [result.data for _, result in results if result.is_successful])
    show_failures(console, folder, [(path, result) for path, result in results if not result.is_successful])
    dearest_path, dearest = max(results, key=lambda pair: pair[1].cpu_seconds or 0)
    per_second = len(paths) / elapsed_seconds
    console.print(f"{len(paths):,} tasks in {elapsed_seconds:.1f} s: {per_second:,.0f} tasks per second")
    console.print(
        f"the dearest task: {dearest_path.relative_to(folder)}, {dearest.cpu_seconds or 0:.2f} CPU seconds, "
        f"{(dearest.peak_memory_bytes or 0) / 1e6:,.0f} MB peak memory"
    )


if __name__ == "__main__":
    main()
