"""The examples, and the programs in the README, print what they are said to print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPECTED = sorted((ROOT / "examples" / "expected").glob("*.txt"))


def _run(program: Path) -> str:
    command = [sys.executable, "-W", "error", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50)
    report = f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == 0 and not result.stderr, report
    return result.stdout


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda path: path.stem)
def test_an_example_prints_what_is_expected(expected: Path) -> None:
    assert _run(ROOT / "examples" / f"{expected.stem}.py") == expected.read_text()


def test_every_example_but_the_demo_has_its_expected_output() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"stdlib_census"}
    assert names == {path.stem for path in EXPECTED}


@pytest.mark.slow
def test_the_demo_counts_the_whole_standard_library() -> None:
    output = _run(ROOT / "examples" / "stdlib_census.py")
    assert "most branching files" in output
    assert "SyntaxError" in output
    assert re.search(r"tasks in .* s: [\d,]+ tasks per second", output)
    assert re.search(r"the dearest task: .*\.py, [\d.]+ CPU seconds, [\d,]+ MB peak memory", output)


PROGRAM_AND_OUTPUT = re.compile(r"```python\n(.*?)```\n(?:\n?```text\n(.*?)```)?", re.DOTALL)
README_PROGRAMS = PROGRAM_AND_OUTPUT.findall((ROOT / "README.md").read_text())


@pytest.mark.parametrize(("program", "output"), README_PROGRAMS, ids=range(len(README_PROGRAMS)))
def test_a_program_in_the_readme_prints_what_stands_below_it(tmp_path: Path, program: str, output: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(program)
    assert _run(path) == output
