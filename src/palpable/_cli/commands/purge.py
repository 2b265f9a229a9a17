"""`palpable purge`: remove what has ended."""

from __future__ import annotations

import click

from palpable._cli.duration_type import Duration
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options


@click.command()
@click.option(
    "--state",
    "states",
    type=click.Choice(["succeeded", "failed", "cancelled"]),
    multiple=True,
    help="Only what ended so; may be given several times.",
)
@click.option(
    "--older-than", type=Duration(), metavar="DURATION", help="Only what ended at least so long ago (90, 5m, 7d)."
)
@click.option("--all", "is_all", is_flag=True, help="Everything that has ended.")
@json_option
@server_options
def command(
    server: ServerChoice, states: tuple[str, ...], older_than: float | None, is_all: bool, as_json: bool
) -> None:
    """Remove tasks that have ended, with their results and output, and say how many.

    Which ones must be said: with --state, --older-than or both, or with --all. What has not ended is never removed:
    that is `palpable cancel`. To keep a copy: `palpable export` first.

    \b
    Examples:
      palpable purge --state failed --older-than 7d
      palpable export > tasks.jsonl && palpable purge --all
    """
    if is_all == bool(states or older_than is not None):
        raise click.UsageError("say what to remove: --state, --older-than or both, or --all")
    from palpable._connection.questions import purge_tasks

    with server.connection() as connection:
        count = purge_tasks(connection, states, older_than or 0.0)
    if as_json:
        print_json({"count": count})
    else:
        click.echo(f"Removed {count} {'task' if count == 1 else 'tasks'}.")
