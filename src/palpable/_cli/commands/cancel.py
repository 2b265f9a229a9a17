"""`palpable cancel`: end tasks."""

from __future__ import annotations

import click

from palpable._cli.ending import FAILED
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.task_ids import task_id_argument
from palpable._cli.task_table import UNFINISHED


@click.command()
@task_id_argument(many=True, states=UNFINISHED)
@json_option
@server_options
def command(server: ServerChoice, task_ids: tuple[str, ...], as_json: bool) -> int:
    """End tasks, whether they run or not, and say what became of each.

    A running task's whole process tree is ended: with SIGTERM, and after the server's grace time with SIGKILL. The exit
    code is 1 if none of the tasks was cancelled by this.

    \b
    Examples:
      palpable cancel 5b1e0c4f8a9d4f21a3b0000000000001
      palpable tasks --state ready --json | jq -r .task_id | xargs -r palpable cancel
    """
    from palpable._connection.questions import cancel_tasks, list_tasks

    task_ids = tuple(dict.fromkeys(task_ids))
    with server.connection() as connection:
        cancelled = dict(zip(task_ids, cancel_tasks(connection, task_ids), strict=True))
        known = {task.task_id: task for task in list_tasks(connection, limit=len(task_ids), task_ids=task_ids)}
    for task_id in task_ids:
        task = known.get(task_id)
        if as_json:
            state = None if task is None else task.state
            print_json({"task_id": task_id, "is_cancelled": cancelled[task_id], "state": state})
        elif cancelled[task_id]:
            click.echo(f"{task_id}: cancelled")
        elif task is None:
            click.echo(f"{task_id}: not known here; it never was, or has ended longer ago than the server keeps tasks")
        else:
            click.echo(f"{task_id}: had ended before, {task.outcome}")
    return 0 if any(cancelled.values()) else FAILED
