"""`palpable export`: tasks and results as JSON lines."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
import msgspec

from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.task_table import as_object
from palpable._core.task_state import State

if TYPE_CHECKING:
    from palpable._connection.connection import Connection
    from palpable._wire.messages import TaskInfo

RESULTS_AT_ONCE = 100
"""Asked for in one question: few, since results may be large."""


@click.command()
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only tasks in this state; may be given several times.",
)
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="Only with this tag, or with all that are given.")
@click.option("--results/--no-results", default=True, show_default=True, help="With what tasks returned or raised.")
@click.option("--json", "as_json", is_flag=True, help="What it does anyway.")
@server_options
def command(server: ServerChoice, states: tuple[str, ...], tags: tuple[str, ...], results: bool, as_json: bool) -> None:
    """Write all tasks to stdout, the newest first, one JSON object a line. Nothing is removed from the server.

    The fields are those of `palpable tasks --json`, and for what has ended its `traceback` and its result: `result`, if
    it can be JSON; else `result_repr`; or `result_error`, where it can't be unpickled here. Unpickling imports what
    results are made of: run it in the folder of the project, or with --no-results.

    \b
    Examples:
      palpable export > tasks.jsonl
      palpable export --state failed --no-results | jq -r '[.task_id, .error_message] | @tsv'
    """
    from palpable._connection.questions import each_task

    encode = msgspec.json.Encoder().encode_lines
    with server.connection() as connection:
        tasks = each_task(connection, states, tags=tags)
        while page := list(islice(tasks, RESULTS_AT_ONCE)):
            found = _results(connection, page) if results else {}
            lines = [{**as_object(task), **found.get(task.task_id, {})} for task in page]
            sys.stdout.write(encode(lines).decode())


def _results(connection: Connection, tasks: list[TaskInfo]) -> dict[str, dict[str, Any]]:
    """Return of each task that has ended, and whose result is there, what there is to add."""
    from palpable._cli.outcomes import result_fields
    from palpable._connection.questions import query_results

    ended = [task.task_id for task in tasks if task.outcome and not task.is_taken]
    if not ended:
        return {}
    reports = query_results(connection, ended, take=False)
    return {
        report.task_id: {**result_fields(report), "traceback": report.traceback}
        for report in reports
        if report is not None
    }
