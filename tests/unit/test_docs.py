"""What the documents say is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from palpable._core.task_state import Outcome
from palpable.units.task_options import CallOptionArguments

ROOT = Path(__file__).parents[2]


def test_the_drawing_of_the_life_of_a_task_is_that_of_its_table() -> None:
    spec = importlib.util.spec_from_file_location("draw_task_life", ROOT / "tools" / "draw_task_life.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = tool.DOCUMENT.read_text()
    assert tool.with_drawing(text) == text, "run: python tools/draw_task_life.py"


def test_every_outcome_is_explained() -> None:
    text = (ROOT / "docs" / "task-life.md").read_text()
    rows = re.findall(r"^\| (?:succeeded|failed|cancelled) \| (\w+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(outcome for outcome in Outcome if outcome)


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_option_of_a_task_is_in_its_table() -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(CallOptionArguments.__annotations__)
