"""`palpable retry`: once more what failed."""

from __future__ import annotations

import click

from palpable._cli.ending import FAILED
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.task_ids import task_id_argument


@click.command()
@task_id_argument(many=True, states=("failed", "cancelled"))
@json_option
@server_options
def command(server: ServerChoice, task_ids: tuple[str, ...], as_json: bool) -> int:
    """Submit again what failed or was cancelled, each as a new task with the same options, and print the new ids.

    It runs at once: what was delayed is not delayed again. The old task stays as it ended. The exit code is 1 if
    nothing could be submitted again.

    \b
    Examples:
      palpable retry 5b1e0c4f8a9d4f21a3b0000000000001
      palpable tasks --state failed --tag nightly --json | jq -r .task_id | xargs palpable retry
    """
    from palpable._connection.questions import list_tasks, retry_tasks

    task_ids = tuple(dict.fromkeys(task_ids))
    with server.connection() as connection:
        new_ids = retry_tasks(connection, task_ids)
        known = {task.task_id: task for task in list_tasks(connection, limit=len(task_ids), task_ids=task_ids)}
    for task_id, new_id in zip(task_ids, new_ids, strict=True):
        task = known.get(task_id)
        if as_json:
            state = None if task is None else task.state
            print_json({"task_id": task_id, "new_task_id": new_id or None, "state": state})
        elif new_id:
            click.echo(f"{task_id}: submitted again as {new_id}")
        elif task is None:
            click.echo(f"{task_id}: not known here; it never was, or has ended longer ago than the server keeps tasks")
        else:
            click.echo(f"{task_id}: {task.state}; only what failed or was cancelled can be run again")
    return 0 if any(new_ids) else FAILED
