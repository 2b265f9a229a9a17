"""Tasks as the commands show them: as JSON, and as the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palpable._cli.output import STATE_COLOURS, fields_of, one_line
from palpable._cli.quantities import duration, size
from palpable._cli.table import Column

if TYPE_CHECKING:
    from palpable._wire.messages import TaskInfo

UNFINISHED = ("scheduled", "ready", "running", "retrying")
"""The states that are not final."""


def as_object(task: TaskInfo) -> dict[str, Any]:
    """Return a task as `--json` prints it."""
    fields = fields_of(task)
    if task.progress is not None:
        fields["progress"] = dict(zip(("done", "total", "note"), task.progress, strict=True))
    return fields


def state_of(task: TaskInfo) -> str:
    """Return the state; also whether the task waits for others, its slot free."""
    return "waiting" if task.is_waiting and task.state == "running" else task.state


def progress_of(task: TaskInfo) -> str:
    """Return how far a running task says it is."""
    if task.progress is None or task.state != "running":
        return ""
    done, total, note = task.progress
    return one_line(f"{done:g}/{total:g} {note}".strip())


COLUMNS: list[Column[TaskInfo]] = [
    Column("ID", lambda task: one_line(task.task_id)),
    Column("NAME", lambda task: one_line(task.name), may_be_cut=True),
    Column("STATE", state_of, colour=lambda task: STATE_COLOURS.get(task.state)),
    Column("OUTCOME", lambda task: task.outcome, rank=1),
    Column("ATTEMPT", lambda task: str(task.attempt or ""), is_number=True, rank=6),
    Column("ELAPSED", lambda task: duration(task.elapsed_seconds), is_number=True, rank=2),
    Column("CPU", lambda task: duration(task.cpu_seconds), is_number=True, rank=4),
    Column("MEMORY", lambda task: size(task.peak_memory_bytes), is_number=True, rank=3),
    Column("WORKER", lambda task: task.worker, rank=5),
    Column("PROGRESS", progress_of, may_be_cut=True, is_optional=True),
    Column("TAGS", lambda task: one_line(",".join(task.tags)), may_be_cut=True, is_optional=True, rank=7),
]
