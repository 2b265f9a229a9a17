"""The page that `palpable top` draws, of looks that were made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from palpable._cli.top_view import Look, page_lines, throughput_of
from palpable._wire.messages import TaskInfo


def _look(at: float, *, ended: int = 0, cpu_seconds: float = 0.0, pid: int = 7, **more: Any) -> Look:
    usage = {"pid": pid, "cpu": 12.0, "cpu_seconds": cpu_seconds, "memory": 20_000_000}
    status = {
        "pid": 1,
        "uptime_seconds": 10.0,
        "num_workers": 2,
        "is_draining": False,
        "waiting": 0,
        "tasks": {"running": 1, "ready": 3},
        "ended": {"succeeded": ended} if ended else {},
        "worker_status": [
            {"name": "Worker-1", "is_busy": True, "processes": [usage]},
            {"name": "Worker-2", "is_busy": False, "processes": []},
        ],
    }
    running = [
        TaskInfo(task_id="t" * 32, name="act", state="running", worker="Worker-1", elapsed_seconds=4.0, **more),
    ]
    queued = [TaskInfo(task_id=f"q{number}", name="later", state="ready") for number in range(30)]
    done = [TaskInfo(task_id=f"e{number}", name="done", state="succeeded", outcome="succeeded") for number in range(30)]
    return Look(at, "unix:///s", status, running, queued, done, {"Worker-1": usage})


def test_the_throughput_is_what_ended_between_two_looks() -> None:
    assert throughput_of(_look(5.0, ended=30), None) == 3.0
    assert throughput_of(_look(5.0, ended=30), _look(3.0, ended=10)) == 10.0


def test_after_a_restart_the_throughput_is_that_since_the_start() -> None:
    assert throughput_of(_look(5.0, ended=20), _look(3.0, ended=100)) == 2.0


@pytest.mark.parametrize(
    ("before", "shown"),
    [(None, "12%"), (_look(0.0, cpu_seconds=1.0), "50%"), (_look(0.0, cpu_seconds=1.0, pid=8), "12%")],
    ids=["in its life", "since the look before", "another process"],
)
def test_cpu_is_the_share_since_the_look_before(before: Look | None, shown: str) -> None:
    lines = page_lines(_look(2.0, cpu_seconds=2.0), before)
    assert next(line for line in lines if line.startswith("Worker-1")).split()[7] == shown


def test_progress_is_drawn_as_a_bar() -> None:
    lines = page_lines(_look(1.0, progress=(30.0, 100.0, "files")), None)
    assert "███░░░░░░░ 30/100 files" in next(line for line in lines if line.startswith("Worker-1"))
    for progress in ((3.0, 0.0, ""), (200.0, 100.0, ""), (-1.0, 100.0, "")):
        assert page_lines(_look(1.0, progress=progress), None)


def test_a_task_that_waits_has_a_line_of_its_own() -> None:
    now = _look(1.0)
    now.running.append(TaskInfo(task_id="w", name="parent", state="running", is_waiting=True))
    (line,) = [line for line in page_lines(now, None) if line.startswith("(waiting)")]
    assert line.split()[1:4] == ["w", "parent", "waiting"]


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 12), (40, 5), (20, 1)])
def test_the_page_fits_the_terminal(width: int, height: int) -> None:
    lines = page_lines(_look(1.0), None, history=[1.0, 2.0], width=width, height=height)
    assert len(lines) <= height
    assert all(len(line) <= max(width, 60) for line in lines)


def test_the_queue_and_what_ended_share_the_room() -> None:
    lines = page_lines(_look(1.0), None, width=120, height=30)
    assert sum(" later " in line for line in lines) >= 4 and sum(" done " in line for line in lines) >= 4


def test_names_cannot_move_the_cursor() -> None:
    now = _look(1.0)
    now.queued[0] = TaskInfo(task_id="x", name="\x1b[2Jevil", state="ready")
    assert not any("\x1b" in line for line in page_lines(now, None))
