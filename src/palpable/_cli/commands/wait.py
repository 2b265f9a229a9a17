"""`palpable wait`: until tasks have ended."""

from __future__ import annotations

import time

import click

from palpable._cli.duration_type import Duration
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.task_ids import task_id_argument
from palpable._cli.task_table import UNFINISHED


@click.command()
@task_id_argument(many=True, states=UNFINISHED)
@click.option("--timeout", type=Duration(), metavar="DURATION", help="Wait so long at most (90, 5m, 1.5h).")
@json_option
@server_options
def command(server: ServerChoice, task_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until tasks have ended, and say of each how.

    The exit code is the task's outcome, as for `palpable run`: 0 succeeded, 1 failed with an error, 3 crashed,
    4 cancelled, 5 not run to its end by the server, 6 not ended in the time given, 124 timed out. Of several tasks, the
    first that has not succeeded decides. Results stay on the server: see `palpable show`.

    \b
    Examples:
      palpable wait $(palpable run --detach reports:build) && echo built
      palpable tasks --tag nightly --json | jq -r .task_id | xargs palpable wait --timeout 1h
    """
    from palpable._cli.outcomes import describe_end, exit_code_of, report_object
    from palpable._connection.questions import query_results
    from palpable._connection.refusals import unknown_task

    deadline = None if timeout is None else time.monotonic() + timeout
    first_failure = 0
    with server.client() as client:
        for task_id in dict.fromkeys(task_ids):
            # A hair above 0, which would be answered before the exit status is known.
            left = -1.0 if deadline is None else max(deadline - time.monotonic(), 0.001)
            (report,) = query_results(client._get_connection(), [task_id], left, take=False)
            if report is None:
                raise unknown_task(task_id)
            if as_json:
                print_json(report_object(report))
            else:
                click.echo(f"{task_id}: {describe_end(report)}")
            first_failure = first_failure or exit_code_of(report)
    return first_failure
