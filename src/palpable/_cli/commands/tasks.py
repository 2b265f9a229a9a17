"""`palpable tasks`: what the server knows of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from palpable._cli.output import (
    STATE_COLOURS,
    fields_of,
    has_colours,
    json_option,
    one_line,
    print_json,
    terminal_width,
)
from palpable._cli.quantities import duration, size
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.table import Column, table_lines
from palpable._core.task_state import State

if TYPE_CHECKING:
    from palpable._wire.messages import TaskInfo


@click.command()
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only tasks in this state; may be given several times.",
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", default=50, show_default=True, help="So many tasks at most."
)
@json_option
@server_options
def command(server: ServerChoice, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List tasks, the newest first.

    A finished task is listed for the server's retention time. Elapsed and CPU time and the peak memory are those of the
    latest attempt. "waiting" is a running task that waits for others, its worker free meanwhile. With --json,
    moments are seconds since 1970 in UTC, durations seconds, sizes bytes.

    \b
    With --json, among other things: which of them failed, and why
      palpable tasks --state failed --json | jq -r '[.task_id, .outcome, .error_message] | @tsv'
    """
    from palpable._connection.questions import list_tasks

    with server.connection() as connection:
        # One more than asked for shows whether there are more.
        tasks = list_tasks(connection, states, limit if as_json else limit + 1)
    if as_json:
        for task in tasks:
            print_json(as_object(task))
        return
    if tasks:
        for line in table_lines(COLUMNS, tasks[:limit], width=terminal_width(), has_colours=has_colours()):
            click.echo(line)
    else:
        click.echo("There are no such tasks." if states else "There are no tasks.", err=True)
    if len(tasks) > limit:
        click.echo(f"There are more: these are the newest {limit}. See --limit.", err=True)


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
]
