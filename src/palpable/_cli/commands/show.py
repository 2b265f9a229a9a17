"""`palpable show`: everything that is known of a task."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from palpable._cli.outcomes import describe_error, result_fields, traceback_of
from palpable._cli.output import STATE_COLOURS, has_colours, json_option, one_line, print_json
from palpable._cli.quantities import duration, size
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.task_ids import task_id_argument
from palpable._cli.task_table import as_object, progress_of, state_of

if TYPE_CHECKING:
    from palpable._wire.messages import TaskInfo, TaskReport


@click.command()
@task_id_argument(many=False)
@json_option
@server_options
def command(server: ServerChoice, task_id: str, as_json: bool) -> None:
    """Show everything that is known of a task: how it is to run, how it went, its result or error, and its output.

    The result is JSON if it can be, else its repr. It stays on the server; one that was handed to a client and removed
    is said to be taken. With --json it is one object, with the fields of `palpable tasks --json` and, besides,
    `output`, `traceback`, and `result`, `result_repr` or `result_error`.

    \b
    Examples:
      palpable show 5b1e0c4f8a9d4f21a3b0000000000001
      palpable show --json 5b1e0c4f8a9d4f21a3b0000000000001 | jq .result
    """
    from palpable._connection.questions import query_results, read_logs, task_info
    from palpable._connection.refusals import unknown_task

    with server.connection() as connection:
        (report,) = query_results(connection, [task_id], take=False)
        task = task_info(connection, task_id)
        if task is None:
            raise unknown_task(task_id)
        output = read_logs(connection, task_id)
    result = {} if report is None else result_fields(report)
    if as_json:
        traceback = "" if report is None else report.traceback
        print_json({**as_object(task), **result, "traceback": traceback, "output": output})
        return
    for name, text in _fields(task, result):
        click.echo(f"{name:<12}{text}")
    _show_blocks(report, output)


def _fields(task: TaskInfo, result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what there is to say, a line each."""
    colour = STATE_COLOURS.get(task.state) if has_colours() else None
    why = f" ({task.outcome})" if task.state == "failed" else ""
    yield "task", one_line(task.task_id)
    yield "name", one_line(task.name)
    yield "state", (click.style(state_of(task), fg=colour) if colour else state_of(task)) + why
    yield "isolation", task.isolation
    for name, text in (
        ("tags", one_line(", ".join(task.tags))),
        ("key", one_line(task.idempotency_key)),
        ("priority", str(task.priority or "")),
        ("timeout", duration(task.timeout_seconds)),
        ("retries", _retries(task)),
        ("parent", one_line(task.parent_id)),
        ("follow-ups", one_line(", ".join(task.followup_task_ids))),
        ("submitted", _moment(task.submitted_at)),
        ("due", _moment(task.due_at)),
        ("started", _moment(task.started_at)),
        ("finished", _moment(task.finished_at)),
        ("attempt", str(task.attempt or "")),
        ("elapsed", duration(task.elapsed_seconds)),
        ("CPU", duration(task.cpu_seconds)),
        ("peak memory", size(task.peak_memory_bytes)),
        ("worker", f"{task.worker}, pid {task.pid}" if task.worker else ""),
        ("progress", progress_of(task)),
        ("exit status", "" if task.exit_status is None else str(task.exit_status)),
        ("error", one_line(describe_error(task.error_type, task.error_message)) if task.error_type else ""),
    ):
        if text:
            yield name, text
    if "result" in result:
        yield "result", bytes(result["result"]).decode()
    elif result:
        yield "result", one_line(next(iter(result.values())))
    elif task.is_taken:
        yield "result", "taken by a client"


def _retries(task: TaskInfo) -> str:
    parts = []
    if task.retries:
        waits = f"waits from {duration(task.backoff_seconds)} to {duration(task.max_backoff_seconds)}"
        after = f", after {', '.join(task.retry_on)}" if task.retry_on else ""
        parts.append(f"{task.retries}{after}, {waits}")
    if task.crash_retries:
        parts.append(f"{task.crash_retries} after crashes")
    if task.at_most_once:
        parts.append("runs once at most")
    return one_line("; ".join(parts))


def _moment(at: float | None) -> str:
    """Return a moment in local time."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().isoformat(" ", "milliseconds")


def _show_blocks(report: TaskReport | None, output: str) -> None:
    if report is not None and (traceback := traceback_of(report)):
        click.echo(f"\n{traceback}")
    if output:
        click.echo("\nIt printed:")
        click.echo(output, nl=not output.endswith("\n"))
