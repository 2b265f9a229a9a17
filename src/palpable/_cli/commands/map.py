"""`palpable map`: a function over every line of the input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from palpable._cli.ending import NotAsked, say_at_end, without_next_call
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.signals import ending_by_exception
from palpable._cli.task_options import TaskChoice, check_path, is_here, task_options
from palpable._cli.task_table import UNFINISHED
from palpable.units.task_exceptions import ServerUnreachable

if TYPE_CHECKING:
    from palpable._cli.line_map import Line, LineMap
    from palpable._wire.messages import Report

LINES_PER_WORKER = 64
"""Read ahead: enough to keep workers busy with tasks of microseconds."""
NAMED_MAX = 20
"""Of more tasks not every id is said, but what all of them begin with."""
PREFIX_LENGTH = 20
"""What the ids of all tasks of a process, and of no others, begin with: see `new_task_id`."""


@click.command()
@click.argument("path", metavar="MODULE:FUNCTION")
@click.option("--text", is_flag=True, help="Pass each line as a string, as it is; else it is a JSON value.")
@click.option("--unordered", is_flag=True, help="Print each result as soon as it is there, in any order.")
@click.option(
    "--window",
    type=click.IntRange(1),
    metavar="N",
    help=f"Read so many lines ahead of the last result, at most. [default: {LINES_PER_WORKER} for each worker]",
)
@click.option("--progress/--no-progress", default=None, help="A bar on stderr. [default: if results go elsewhere]")
@task_options
@json_option
@server_options
def command(
    server: ServerChoice,
    how: TaskChoice,
    path: str,
    text: bool,
    unordered: bool,
    window: int | None,
    progress: bool | None,
    as_json: bool,
) -> int:
    """Call a function with every line of the input, each in a task, and print what it returns, a line each.

    Each line of stdin is a JSON value, or with --text plain text, and the function's one argument. Results are JSON,
    in the order of the lines; what can't be JSON is a string, its repr. Lines are read as they are needed, so the input
    may be endless; empty ones are passed over, but not with --text. The options that the function has by
    @palpable.task(...) count where none is given here.

    With --json each result is an object, with the number of its `line`, its `task_id`, and `result` or `result_repr`;
    of a failure, `error_type` and `error_message`.

    The first failure ends it, with the exit code of its outcome as for `palpable run`, and cancels the rest; so does
    Ctrl-C. What the tasks print is kept: see `palpable logs`.

    \b
    Examples:
      seq 10 | palpable map math:sqrt
      ls *.csv | palpable map --text reports:summary > summaries.jsonl
      jq -c '.orders[]' day.json | palpable map shop:check --isolation worker --unordered
    """
    check_path(path)
    options = how.options()
    if progress is None:
        # Lines and a bar on one terminal would be in each other's way.
        progress = sys.stderr.isatty() and not sys.stdout.isatty()
    with ending_by_exception(), server.client() as client:
        from palpable._cli.current_folder import import_from_here
        from palpable._cli.function_options import view_for
        from palpable._cli.line_map import LineMap
        from palpable._cli.named_function import NamedFunction
        from palpable._connection.bulk import workers_of

        import_from_here()  # results may be of classes that are defined there
        ahead = window or LINES_PER_WORKER * workers_of(client._get_connection())
        where = server.address()
        folder = how.folder_at(where)
        lines = LineMap(
            view_for(client, options, path, folder, is_here=is_here(where), timeout_seconds=how.timeout),
            NamedFunction(path, folder),
            _params(is_text=text),
            window=ahead,
            is_ordered=not unordered,
            before_waiting=sys.stdout.flush,
        )
        with _closing(lines), _bar(progress, path) as on_progress:
            for count, line in enumerate(lines, 1):
                report = line.report()
                if report.outcome != "succeeded":
                    return _fail(line, report, as_json=as_json)
                sys.stdout.write(_as_line(line, as_json=as_json))
                if on_progress is not None:
                    on_progress(count)
    return 0


@contextmanager
def _closing(lines: LineMap) -> Iterator[None]:
    """Close at the end, and say which tasks are still on the server: who calls again would have them twice."""
    try:
        yield
    except ServerUnreachable as error:
        left = lines.close()
        if not left:
            raise
        raise NotAsked(
            f"{without_next_call(error)} What it had accepted, {_count(left)} at most, is kept, and run by the next "
            f"server on the same store. To have it not run: {_cancelling(left)}"
        ) from None
    except BaseException:
        _say_left(lines.close())
        raise
    else:
        _say_left(lines.close())


def _say_left(task_ids: list[str]) -> None:
    if task_ids:
        what = f"{_count(task_ids)} could not be cancelled now"
        say_at_end(f"palpable: {what}. When the server is back: {_cancelling(task_ids)}")


def _count(task_ids: list[str]) -> str:
    return "1 task" if len(task_ids) == 1 else f"{len(task_ids)} tasks"


def _cancelling(task_ids: list[str]) -> str:
    """Return the command that cancels these tasks."""
    prefixes = {task_id[:PREFIX_LENGTH] for task_id in task_ids}
    if len(task_ids) <= NAMED_MAX or len(prefixes) > 1:
        return f"palpable cancel {' '.join(task_ids)}"
    states = " ".join(f"--state {state}" for state in UNFINISHED)
    return f"palpable tasks {states} --limit 1000000 | grep -o '^{prefixes.pop()}[0-9a-f]*' | xargs palpable cancel"


def _params(*, is_text: bool) -> Iterator[tuple[int, Any]]:
    from palpable._cli.json_values import parse_json
    from palpable._cli.line_map import read_lines

    for number, line in read_lines(0):
        if is_text:
            yield number, os.fsdecode(line.removesuffix(b"\r"))
        elif line.strip():
            try:
                yield number, parse_json(line, f"line {number}")
            except ValueError as error:
                raise NotAsked(f"{error}. With --text lines are passed as they are.") from None


def _as_line(line: Line, *, as_json: bool) -> str:
    import msgspec

    from palpable._cli.outcomes import value_fields

    fields = value_fields(line.future.result())
    if as_json:
        shown: Any = {"line": line.number, "task_id": line.future.task_id, **fields}
    else:
        shown = fields["result"] if "result" in fields else fields["result_repr"]
    return f"{msgspec.json.encode(shown).decode()}\n"


def _fail(line: Line, report: Report, *, as_json: bool) -> int:
    """Say what became of a line; return the exit code."""
    from palpable._cli.outcomes import error_of, exit_code_of, say_failure
    from palpable._wire.error_names import class_name

    exit_code = exit_code_of(report)
    if as_json:
        error_type, message = report.error_type, report.error_message
        if report.outcome != "error":
            error = error_of(report)
            error_type, message = class_name(type(error)), str(error)
        what = {"error_type": error_type, "error_message": message, "exit_code": exit_code}
        print_json({"line": line.number, "task_id": report.task_id, **what})
    else:
        say_failure(report, f"line {line.number}: ")
    return exit_code


def _bar(is_wanted: bool, name: str) -> AbstractContextManager[Callable[[int], None] | None]:
    if not is_wanted:
        return nullcontext()
    from palpable._connection.progress_bar import progress_bar

    return progress_bar(name, None)
