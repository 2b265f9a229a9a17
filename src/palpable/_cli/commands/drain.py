"""`palpable drain`: finish what runs, start nothing more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from palpable._cli.duration_type import Duration
from palpable._cli.ending import Failure
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options

if TYPE_CHECKING:
    from palpable._connection.connection import Connection

LOOK_SECONDS = 1.0
"""A wait for the running tasks ends with the last of them, and looks again so often: one may be waiting for its retry,
and would never end while the server drains."""


@click.command()
@click.option("--wait", is_flag=True, help="Return when nothing runs any more.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="With --wait: wait so long at most (90, 5m, 1h).")
@click.option("--off", is_flag=True, help="Accept and start tasks again.")
@json_option
@server_options
def command(server: ServerChoice, wait: bool, timeout: float | None, off: bool, as_json: bool) -> None:
    """Have the server finish what runs, and accept and start nothing more, until `palpable drain --off`.

    Queued tasks stay queued; what a running task submits and waits for is still run. `palpable status` shows that the
    server drains. To end it as well: `palpable stop --drain-seconds`.

    \b
    Examples:
      palpable drain --wait --timeout 10m
      palpable drain --off
    """
    if off and (wait or timeout is not None):
        raise click.UsageError("--off starts tasks again; there is nothing to wait for")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    from palpable._wire.messages import DrainServer, GetStatus

    deadline = None if timeout is None else time.monotonic() + timeout
    with server.connection() as connection:
        connection.answer_to(lambda request_id: DrainServer(request_id=request_id, is_on=not off))
        if wait and not _wait_idle(connection, deadline):
            raise Failure(
                f"tasks still run after {timeout:g} s; the server goes on draining. See `palpable status`; to take it "
                f"back: palpable drain --off."
            )
        status = connection.answer_to(lambda request_id: GetStatus(request_id=request_id)).status
    running = status["tasks"].get("running", 0)
    if as_json:
        print_json({"is_draining": status["is_draining"], "running": running})
    elif off:
        click.echo("The server accepts and starts tasks again.")
    elif running:
        click.echo(f"The server drains: {running} {'task runs' if running == 1 else 'tasks run'} to the end.")
    else:
        click.echo("The server drains, and nothing runs.")


def _wait_idle(connection: Connection, deadline: float | None) -> bool:
    """Return whether nothing runs any more before the deadline."""
    from palpable._connection.questions import list_tasks, query_results

    while running := list_tasks(connection, ("running",)):
        left = LOOK_SECONDS if deadline is None else min(deadline - time.monotonic(), LOOK_SECONDS)
        if left <= 0:
            return False
        query_results(connection, [task.task_id for task in running], left, take=False)
    return True
