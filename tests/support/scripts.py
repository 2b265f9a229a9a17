"""Running a program of a user's own, as a file, the way a user does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def run_script(
    folder: Path, source: str, *arguments: str, timeout_seconds: float = 40.0, warnings: str = "error"
) -> str:
    """Write `source` to a file in `folder`, run it with this Python, return what it printed to stdout.

    Args:
        warnings: what becomes of them, as `python -W` says it.

    Raises:
        AssertionError: it ended with an error, or printed warnings to stderr.
    """
    path = folder / "script.py"
    path.write_text(textwrap.dedent(source))
    command = [sys.executable, "-W", warnings, str(path), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_seconds)
    report = f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == 0 and not result.stderr, report
    return result.stdout


@contextmanager
def started_script(folder: Path, source: str) -> Iterator[subprocess.Popen[str]]:
    """Run `source` beside the test, in a process group of its own; it is killed and waited for at the end."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(source))
    process = subprocess.Popen(
        [sys.executable, str(path)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)
