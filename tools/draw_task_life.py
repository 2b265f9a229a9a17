"""Draws the life of a task from its table into `docs/task-life.md`: between the two marks, for Mermaid.

Usage: python tools/draw_task_life.py        A test fails when the document and the table differ.
"""

from __future__ import annotations

from pathlib import Path

from palpable._core.task_state import FINAL, TRANSITIONS, State

DOCUMENT = Path(__file__).parents[1] / "docs" / "task-life.md"
BEGIN, END = "<!-- drawn by tools/draw_task_life.py -->\n", "<!-- end of the drawing -->\n"


def drawing() -> str:
    """Return the diagram, in the order of the table."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.READY}", f"    [*] --> {State.SCHEDULED}"]
    lines += [f"    {source} --> {target}: {what}" for (source, what), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join([*lines, "```", ""])


def with_drawing(text: str) -> str:
    """Return the document with the drawing of today."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + drawing() + END + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(with_drawing(DOCUMENT.read_text()))
