"""What is printed is safe to print, and JSON has every field."""

from __future__ import annotations

import sys

import pytest

from palpable._cli.output import has_colours, one_line
from palpable._cli.task_table import as_object, progress_of, state_of
from palpable._wire.messages import TaskInfo


def test_a_name_that_moves_the_cursor_is_made_harmless() -> None:
    assert one_line("a\nb\x1b[2Jc\td é") == "a?b?[2Jc?d é"


def test_json_has_all_fields_also_those_at_their_default() -> None:
    fields = as_object(TaskInfo(task_id="1", name="f", state="ready"))
    assert set(fields) == set(TaskInfo.__struct_fields__)
    assert fields["outcome"] == "" and fields["exit_status"] is None and fields["progress"] is None


def test_progress_has_names_in_json() -> None:
    task = TaskInfo(task_id="1", name="f", state="running", progress=(1.0, 4.0, "half\nway"))
    assert as_object(task)["progress"] == {"done": 1.0, "total": 4.0, "note": "half\nway"}
    assert progress_of(task) == "1/4 half?way"


def test_a_task_that_waits_for_others_is_shown_as_waiting() -> None:
    assert state_of(TaskInfo(task_id="1", name="f", state="running", is_waiting=True)) == "waiting"
    assert state_of(TaskInfo(task_id="1", name="f", state="cancelled", is_waiting=True)) == "cancelled"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not has_colours()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert has_colours()
    monkeypatch.setenv(name, value)
    assert not has_colours()
