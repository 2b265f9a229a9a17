"""The examples, and the programs in the README, print what they are said to print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
EXPECTED = sorted((EXAMPLES / "expected").glob("*.txt"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def _run(program: Path, *arguments: object, folder: Path | None = None, timeout_seconds: float = 50) -> str:
    runner = ["bash"] if program.suffix == ".sh" else [sys.executable, "-W", "error"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [*runner, str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        env={**os.environ, "PATH": path},
        cwd=folder,
    )
    report = f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == 0 and not result.stderr, report
    return result.stdout


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda path: path.stem)
def test_an_example_prints_what_is_expected(expected: Path) -> None:
    (example,) = (path for path in _programs() if path.stem == expected.stem)
    assert _run(example) == expected.read_text()


def _programs() -> list[Path]:
    return [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sh")]


def test_every_example_but_the_demo_has_its_expected_output() -> None:
    names = {path.stem for path in _programs()} - {"stdlib_census"}
    assert names == {path.stem for path in EXPECTED}


def test_every_example_is_in_their_list() -> None:
    listed = set(re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text()))
    assert listed == {path.name for path in [*_programs(), *NOTEBOOKS]}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_give_what_is_stored_below_them(notebook: Path) -> None:
    given = json.loads(_run(ROOT / "tests" / "support" / "run_notebook.py", notebook))
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert given == [[_stored(cell, "stream") or "", _stored(cell, "execute_result")] for cell in cells]


def _stored(cell: dict[str, Any], kind: str) -> str | None:
    """What stands below a cell: its printed text, or its value."""
    for output in cell["outputs"]:
        if output["output_type"] == kind:
            return "".join(output["text"] if kind == "stream" else output["data"]["text/plain"])
    return None


@pytest.mark.slow
@pytest.mark.timeout(180)  # two thousand files, each read by a process, beside other tests
def test_the_demo_counts_the_whole_standard_library() -> None:
    output = _run(EXAMPLES / "stdlib_census.py", timeout_seconds=170)
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
    assert _run(path, folder=tmp_path) == output
