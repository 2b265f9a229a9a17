"""`palpable tasks`: what the server knows of its tasks."""

from __future__ import annotations

import click

from palpable._cli.output import has_colours, json_option, print_json, terminal_width
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.table import table_lines
from palpable._cli.task_table import COLUMNS, as_object
from palpable._core.task_state import State


@click.command()
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only tasks in this state; may be given several times.",
)
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="Only with this tag, or with all that are given.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", default=50, show_default=True, help="So many tasks at most."
)
@json_option
@server_options
def command(server: ServerChoice, states: tuple[str, ...], tags: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List tasks, the newest first.

    A finished task is listed for the server's retention time. Elapsed and CPU time and the peak memory are those of the
    latest attempt. "waiting" is a running task that waits for others, its worker free meanwhile. With --json everything
    is shown: how a task is to be run too; moments are seconds since 1970 in UTC, durations seconds, sizes bytes.

    \b
    Examples:
      palpable tasks --tag nightly --limit 1000
      palpable tasks --state failed --json | jq -r '[.task_id, .outcome, .error_message] | @tsv'
    """
    from palpable._connection.questions import each_task

    with server.connection() as connection:
        if as_json:
            for task in each_task(connection, states, tags=tags, limit=limit):
                print_json(as_object(task))
            return
        # One more than asked for shows whether there are more.
        tasks = list(each_task(connection, states, tags=tags, limit=limit + 1))
    if tasks:
        for line in table_lines(COLUMNS, tasks[:limit], width=terminal_width(), has_colours=has_colours()):
            click.echo(line)
    else:
        click.echo("There are no such tasks." if states or tags else "There are no tasks.", err=True)
    if len(tasks) > limit:
        click.echo(f"There are more: these are the newest {limit}. See --limit.", err=True)
