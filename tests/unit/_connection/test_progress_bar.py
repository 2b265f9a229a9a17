"""The bar of bulk calls: on a terminal, in a notebook, and where there is neither."""

from __future__ import annotations

import builtins
import io
import sys
import types
from typing import Any

import pytest

from palpable._connection import progress_bar as module
from palpable._connection.bulk import WATCHED_CHUNKS, automatic_chunksize
from palpable._connection.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Cell:
    """The output of a notebook's cell: one line for each display, which updates replace."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self.draw_count = 0

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Cell:
        assert raw and display_id
        self.shown.append(data)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown[-1] = data
        self.draw_count += 1


def in_notebook(monkeypatch: pytest.MonkeyPatch, shell_name: str = "ZMQInteractiveShell") -> Cell:
    """Have this process look like the kernel of a notebook."""
    cell = Cell()
    shell = type(shell_name, (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    library, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    display.display = cell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", library)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return cell


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is drawn."""
    monkeypatch.setattr(module, "REDRAW_SECONDS", 0.0)


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("double[red]", 20) as show:
        assert show is not None
        show(13)
    assert "double[red]" in terminal.getvalue(), "a name is no markup"
    assert "13/20" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), None], ids=["a file", "no stderr at all"])
def test_in_a_log_there_is_nothing(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as build servers set it
    with progress_bar("double", 20) as show:
        assert show is None
    assert stream is None or stream.getvalue() == ""


def test_a_closed_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    stream.isatty = io.StringIO().isatty  # type: ignore[method-assign]
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("double", 20) as show:
        assert show is None


@pytest.mark.usefixtures("eager")
def test_in_a_notebook_there_is_one_bar_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = in_notebook(monkeypatch)
    with progress_bar("<lambda>", 4) as show:
        assert show is not None
        show(1)
        assert 'value="1" max="4"' in cell.shown[0]["text/html"]
        show(4)
    [shown] = cell.shown
    assert "&lt;lambda&gt;" in shown["text/html"]
    assert shown["text/plain"] == "<lambda>: 4/4, 0:00:00 elapsed"


@pytest.mark.usefixtures("eager")
def test_in_a_notebook_the_rest_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = in_notebook(monkeypatch)
    with progress_bar("f", 4) as show:
        assert show is not None
        show(2)
        assert cell.shown[0]["text/plain"] == "f: 2/4, 0:00:00 elapsed, 0:00:00 left"


def test_in_a_notebook_an_unknown_total_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = in_notebook(monkeypatch)
    with progress_bar("f", None) as show:
        assert show is not None
        show(2)
    assert cell.shown[0]["text/plain"] == "f: 2/?, 0:00:00 elapsed"
    assert "<progress></progress>" in cell.shown[0]["text/html"]


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    in_notebook(monkeypatch, "TerminalInteractiveShell")
    assert not module.is_in_notebook()


def test_a_bar_is_not_drawn_more_often_than_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, clock = in_notebook(monkeypatch), iter(range(1000))
    monkeypatch.setattr(module, "monotonic", lambda: next(clock) * module.REDRAW_SECONDS / 10)
    with progress_bar("f", 100) as show:
        assert show is not None
        for done in range(1, 101):
            show(done)
    assert 5 <= cell.draw_count <= 15
    assert cell.shown[0]["text/plain"].startswith("f: 100/100"), "the last one is drawn in any case"


@pytest.mark.usefixtures("eager")
def test_after_an_error_the_bar_stays_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = in_notebook(monkeypatch)
    with pytest.raises(KeyError), progress_bar("f", 9) as show:
        assert show is not None
        show(3)
        raise KeyError
    assert show is not None
    show(4)
    assert cell.shown[0]["text/plain"].startswith("f: 3/9")


def test_a_bar_moves_in_steps_of_a_hundredth_at_most() -> None:
    assert automatic_chunksize(100_000, 2, is_watched=False) == 12_500
    assert automatic_chunksize(100_000, 2, is_watched=True) == 100_000 / WATCHED_CHUNKS
    assert automatic_chunksize(100_000, 64, is_watched=True) == automatic_chunksize(100_000, 64, is_watched=False)
    assert automatic_chunksize(30, 2, is_watched=True) == 1
