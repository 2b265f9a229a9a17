"""`palpable logs`: what a task prints."""

from __future__ import annotations

import sys

import click

from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.task_ids import task_id_argument


@click.command()
@task_id_argument(many=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as the task prints, until it ends.")
@json_option
@server_options
def command(server: ServerChoice, task_id: str, follow: bool, as_json: bool) -> None:
    """Show what a task printed: stdout and stderr, of Python, C and subprocesses alike.

    The output is kept as long as `palpable tasks` lists the task. Of very much output the head and the tail are kept.
    With --json it comes in pieces, the `text` of an object each.

    \b
    Examples:
      palpable logs -f 5b1e0c4f8a9d4f21a3b0000000000001
      palpable logs $(palpable tasks --json --limit 1 | jq -r .task_id)
    """
    from palpable._connection.questions import follow_logs, read_logs

    with server.client() as client:
        connection = client._get_connection()
        pieces = follow_logs(connection, task_id) if follow else iter([read_logs(connection, task_id)])
        for piece in pieces:
            if not as_json:
                sys.stdout.write(piece)
            elif piece:
                print_json({"task_id": task_id, "text": piece})
            sys.stdout.flush()
