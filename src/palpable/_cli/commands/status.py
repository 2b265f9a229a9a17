"""`palpable status`: what the server and its workers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from palpable._cli.output import has_colours, json_option, one_line, print_json, terminal_width
from palpable._cli.quantities import duration, size
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.table import Column, table_lines
from palpable._cli.task_table import progress_of

if TYPE_CHECKING:
    from palpable._wire.messages import TaskInfo


@click.command()
@json_option
@server_options
def command(server: ServerChoice, as_json: bool) -> None:
    """Show what the server and its workers do.

    CPU is the share of one core that a worker's process has used in its life, memory what it holds now, both with all
    its descendants.

    \b
    Examples:
      palpable status
      palpable status --json | jq '.tasks.running'
    """
    from palpable._connection.questions import list_tasks
    from palpable._wire.messages import GetStatus

    with server.connection() as connection:
        status = connection.answer_to(lambda request_id: GetStatus(request_id=request_id)).status
        running = [] if as_json else list_tasks(connection, ("running",))
        url = connection.address
    if as_json:
        print_json({"url": url, **status})
        return
    for name, text in _summary(url, status):
        click.echo(f"{name:<12}{text}")
    click.echo()
    tasks = {task.worker: task for task in running if task.worker}
    workers = [_Worker(worker, tasks.get(worker["name"])) for worker in status["worker_status"]]
    for line in table_lines(COLUMNS, workers, width=terminal_width(), has_colours=has_colours()):
        click.echo(line)


def _summary(url: str, status: dict[str, Any]) -> list[tuple[str, str]]:
    counts = status["tasks"]
    busy = sum(worker["is_busy"] for worker in status["worker_status"])
    tasks = [
        f"{counts[state]} {state}"
        for state in ("running", "ready", "scheduled", "retrying", "succeeded", "failed", "cancelled")
        if counts.get(state)
    ]
    waiting = f", {status['waiting']} of the running ones waiting for others" if status["waiting"] else ""
    lines = [
        ("server", f"{url}, pid {status['pid']}, version {status['version']}"),
        ("up", duration(status["uptime_seconds"])),
        ("workers", f"{status['num_workers']}, {busy} busy, isolation {status['isolation']}"),
        ("tasks", (", ".join(tasks) or "none") + waiting),
        ("results", f"{status['result_cache_size']} kept"),
        ("store", _store(status["store"])),
        ("processes", f"{status['processes']['live']} at work, {status['processes']['idle']} idle"),
    ]
    if status["is_draining"]:
        lines.insert(
            1, ("draining", f"{counts.get('running', 0)} still running; to take it back: palpable drain --off")
        )
    if preloaded := [name for name in status["preloaded"] if name not in status["not_preloaded"]]:
        lines.append(("preloaded", ", ".join(preloaded)))
    lines += [("not loaded", one_line(f"{name}: {why}")) for name, why in status["not_preloaded"].items()]
    return lines


def _store(store: dict[str, Any] | None) -> str:
    if store is None:
        return "none: what is not finished is lost when the server ends"
    full = ", and its disk is full: nothing new is accepted until there is room" if store["is_full"] else ""
    return f"{one_line(store['path'])}, {size(store['size_bytes'])}{full}"


class _Worker(NamedTuple):
    status: dict[str, Any]
    task: TaskInfo | None

    @property
    def process(self) -> dict[str, Any]:
        """The process in the worker's slot, as the status has it; empty if there is none."""
        processes = self.status["processes"]
        return processes[0] if processes else {}


COLUMNS: list[Column[_Worker]] = [
    Column("WORKER", lambda worker: worker.status["name"]),
    Column("TASK", lambda worker: one_line(worker.task.task_id) if worker.task else "", rank=1),
    Column("NAME", lambda worker: one_line(worker.task.name) if worker.task else "", may_be_cut=True),
    Column("ELAPSED", lambda worker: duration(worker.task.elapsed_seconds) if worker.task else "", is_number=True),
    Column("PID", lambda worker: str(worker.process.get("pid", "")), is_number=True, rank=2),
    Column("CPU", lambda worker: f"{worker.process['cpu']:.0f}%" if worker.process else "", is_number=True),
    Column("MEMORY", lambda worker: size(worker.process.get("memory")), is_number=True),
    Column(
        "PROGRESS", lambda worker: progress_of(worker.task) if worker.task else "", may_be_cut=True, is_optional=True
    ),
]
