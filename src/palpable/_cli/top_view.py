"""What a server does at this moment, as a page of text: made of what was seen now and a moment before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from palpable._cli.output import one_line
from palpable._cli.quantities import duration, size
from palpable._cli.table import Column, table_lines
from palpable._cli.task_table import COLUMNS as TASK_COLUMNS
from palpable._cli.task_table import state_of

if TYPE_CHECKING:
    from palpable._connection.connection import Connection
    from palpable._wire.messages import TaskInfo

MOST_RUNNING = 500
MOST_QUEUED = 50
MOST_ENDED = 50
BAR_WIDTH = 10
HISTORY_WIDTH = 30
STEPS = " ▁▂▃▄▅▆▇█"


class Look(NamedTuple):
    """What was seen of a server at one moment.

    Attributes:
        at: monotonic seconds.
        running, queued, ended: tasks, the newest first; not more of each than a page can hold.
        usage: by worker and, for tasks that have none, by task: pid, cpu, cpu_seconds, memory of a process.
    """

    at: float
    url: str
    status: dict[str, Any]
    running: list[TaskInfo]
    queued: list[TaskInfo]
    ended: list[TaskInfo]
    usage: dict[str, dict[str, Any]]

    @property
    def ended_count(self) -> int:
        """How many tasks have ended since the server started."""
        return int(sum(self.status["ended"].values()))


def look(connection: Connection, at: float) -> Look:
    """Ask the server once for all that a page shows."""
    from palpable._connection.questions import list_tasks
    from palpable._wire.messages import GetStatus

    status = connection.answer_to(lambda request_id: GetStatus(request_id=request_id)).status
    running = list_tasks(connection, ("running",), MOST_RUNNING)
    queued = list_tasks(connection, ("ready", "scheduled", "retrying"), MOST_QUEUED)
    ended = list_tasks(connection, ("succeeded", "failed", "cancelled"), MOST_ENDED)
    usage = {worker["name"]: worker["processes"][0] for worker in status["worker_status"] if worker["processes"]}
    if connection.address.startswith("unix:"):
        usage.update(_usage_of_waiting(running))
    return Look(at, connection.address, status, running, queued, ended, usage)


def _usage_of_waiting(running: Sequence[TaskInfo]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what those use that have given up their slot: the server's status has only what is in one."""
    waiting = [task for task in running if not task.worker and task.pid]
    if waiting:
        from palpable.servants.process_usage import usage_of

        for task in waiting:
            usage = usage_of(task.pid or 0)
            if usage is not None:
                yield task.task_id, usage


class Row(NamedTuple):
    """A worker and the task it runs, or a task without a worker."""

    worker: str
    task: TaskInfo | None
    usage: dict[str, Any] | None
    cpu_percent: float | None


def rows_of(now: Look, before: Look | None) -> list[Row]:
    """Return the workers in their order, then the running tasks that have none."""
    by_worker = {task.worker: task for task in now.running if task.worker}
    rows = []
    for worker in now.status["worker_status"]:
        name = worker["name"]
        rows.append(Row(name, by_worker.get(name), now.usage.get(name), _cpu_percent(name, now, before)))
    for task in reversed(now.running):
        if not task.worker:
            rows.append(Row("", task, now.usage.get(task.task_id), _cpu_percent(task.task_id, now, before)))
    return rows


def throughput_of(now: Look, before: Look | None) -> float:
    """Return how many tasks a second have ended, since the look before; without one, since the server's start."""
    if before is None or now.ended_count < before.ended_count:  # or it was started again meanwhile
        return now.ended_count / max(float(now.status["uptime_seconds"]), 1e-3)
    return (now.ended_count - before.ended_count) / max(now.at - before.at, 1e-3)


def _cpu_percent(name: str, now: Look, before: Look | None) -> float | None:
    """Return the share of one core that a process used since the look before, else in its life."""
    usage = now.usage.get(name)
    if usage is None:
        return None
    earlier = before.usage.get(name) if before is not None else None
    if before is None or earlier is None or earlier["pid"] != usage["pid"]:
        return float(usage["cpu"])
    # A child that has ended takes its share with it.
    used = float(usage["cpu_seconds"]) - float(earlier["cpu_seconds"])
    return max(0.0, 100 * used / max(now.at - before.at, 1e-3))


# --- as text ----------------------------------------------------------------------------------------------------


def page_lines(
    now: Look,
    before: Look | None,
    *,
    history: Sequence[float] = (),
    width: int | None = None,
    height: int | None = None,
    has_colours: bool = False,
) -> list[str]:
    """Return the page: what the server is, its workers with their tasks, its queue, and what ended last.

    Args:
        history: of the throughput, the oldest first.
        height: so many lines at most; what does not fit is left out, the workers last of all.
    """
    lines = [_cut(line, width) for line in _summary(now, before, history)]
    lines += ["", *table_lines(ROW_COLUMNS, rows_of(now, before), width=width, has_colours=has_colours)]
    for title, tasks in (("QUEUED", now.queued), ("ENDED", now.ended)):
        room = None if height is None else height - len(lines) - 3
        if title == "QUEUED" and room is not None and now.ended:
            room = max(room // 2, 1)
        if tasks and (room is None or room > 0):
            heading = f"{title}, the newest first"
            lines += ["", click.style(heading, bold=True) if has_colours else heading]
            lines += table_lines(TASK_COLUMNS, tasks[:room], width=width, has_colours=has_colours)
    return lines if height is None else lines[:height]


def _summary(now: Look, before: Look | None, history: Sequence[float]) -> Iterator[str]:
    status, counts = now.status, now.status["tasks"]
    busy = sum(worker["is_busy"] for worker in status["worker_status"])
    draining = ", draining" if status["is_draining"] else ""
    yield f"{now.url}, pid {status['pid']}, up {duration(status['uptime_seconds'])}{draining}"
    waiting = f" ({status['waiting']} waiting for others)" if status["waiting"] else ""
    queued = ", ".join(f"{counts[state]} {state}" for state in ("ready", "scheduled", "retrying") if counts.get(state))
    yield f"workers     {busy} of {status['num_workers']} busy"
    yield f"tasks       {counts.get('running', 0)} running{waiting}, {queued or 'none queued'}"
    ended = ", ".join(f"{count} {outcome}" for outcome, count in status["ended"].items())
    yield f"ended       {ended or 'none'} since the start"
    when = "" if before is not None else " on average"
    line = f"throughput  {throughput_of(now, before):.1f} tasks/s{when}"
    yield f"{line}  {_spark_line(history)}" if len(history) > 1 else line
    cpu = sum(row.cpu_percent or 0.0 for row in rows_of(now, before))
    memory = sum(usage["memory"] for usage in now.usage.values())
    yield f"usage       {cpu:.0f}% of a core, {size(memory)} by running tasks"


def _spark_line(history: Sequence[float]) -> str:
    shown = list(history)[-HISTORY_WIDTH:]
    most = max(shown) or 1.0
    return "".join(STEPS[round(value / most * (len(STEPS) - 1))] for value in shown)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"


def _progress(row: Row) -> str:
    if row.task is None or row.task.progress is None:
        return ""
    done, total, note = row.task.progress
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    filled = round(share * BAR_WIDTH)
    return one_line(f"{'█' * filled}{'░' * (BAR_WIDTH - filled)} {done:g}/{total:g} {note}".strip())


ROW_COLUMNS: list[Column[Row]] = [
    Column("WORKER", lambda row: row.worker or "(waiting)"),
    Column("TASK", lambda row: one_line(row.task.task_id) if row.task else "", rank=1),
    Column("NAME", lambda row: one_line(row.task.name) if row.task else "", may_be_cut=True),
    Column("STATE", lambda row: state_of(row.task) if row.task else "", rank=3),
    Column("ELAPSED", lambda row: duration(row.task.elapsed_seconds) if row.task else "", is_number=True),
    Column("PID", lambda row: str(row.usage["pid"]) if row.usage else "", is_number=True, rank=2),
    Column("CPU", lambda row: "" if row.cpu_percent is None else f"{row.cpu_percent:.0f}%", is_number=True),
    Column("MEMORY", lambda row: size(row.usage["memory"]) if row.usage else "", is_number=True),
    Column("PROGRESS", _progress, may_be_cut=True, is_optional=True),
]
