"""The command line as a program: run to its end, or started beside the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PALPABLE = [sys.executable, "-W", "error", "-m", "palpable"]
Serve = Callable[..., subprocess.Popen[str]]
"""Starts `palpable serve` with the given options, and returns when it listens."""


def palpable(
    *arguments: object, environment: dict[str, str] | None = None, folder: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PALPABLE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, **(environment or {})},
        cwd=folder,
        input=stdin,
    )


def answer(
    *arguments: object, environment: dict[str, str] | None = None, folder: Path | None = None, stdin: str = ""
) -> str:
    """What a command prints that must succeed, without complaints."""
    result = palpable(*arguments, environment=environment, folder=folder, stdin=stdin)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def refusal(code: int, *arguments: object) -> str:
    """The one line on stderr of a command that must fail with this exit code."""
    result = palpable(*arguments)
    assert result.returncode == code, result
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr, result.stderr
    return result.stderr


@contextmanager
def started(
    *arguments: object, folder: Path | None = None, constants: Mapping[str, float] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test, in a process group of its own; it is ended at the end, if it has not by itself.

    Args:
        constants: of modules, "package.module.NAME": have another value there.
    """
    process = subprocess.Popen(
        [*_with(constants or {}), *map(str, arguments)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        process_group=0,
        cwd=folder,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _with(constants: Mapping[str, float]) -> list[str]:
    if not constants:
        return PALPABLE
    lines = ["import importlib"]
    for path, value in constants.items():
        module, _, name = path.rpartition(".")
        lines.append(f"module = importlib.import_module({module!r}); module.{name}; module.{name} = {value}")
    lines.append("from palpable._cli.main import main; main()")
    return [*PALPABLE[:-2], "-c", "\n".join(lines)]


def first_line(process: subprocess.Popen[str]) -> str:
    """What a command says first; the test fails with its errors if it says nothing."""
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line


def remove_folders_of_the_killed() -> None:
    """Remove the private folders of servers that were killed, and could not: log files, and what tasks print."""
    for folder in Path(tempfile.gettempdir()).glob("palpable-*"):
        shutil.rmtree(folder)
