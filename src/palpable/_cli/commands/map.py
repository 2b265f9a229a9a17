"""`palpable map`: a function over every line of the input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any

import click

from palpable._cli.ending import NotAsked
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.signals import ending_by_exception
from palpable._cli.task_options import TaskChoice, check_path, is_here, task_options

if TYPE_CHECKING:
    from palpable._cli.line_map import Line

LINES_PER_WORKER = 64
"""Read ahead: enough to keep workers busy with tasks of microseconds."""


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
        with closing(lines), _bar(progress, path) as on_progress:
            for count, line in enumerate(lines, 1):
                error = line.future.exception()
                if error is not None:
                    return _fail(line, error, as_json=as_json)
                sys.stdout.write(_as_line(line, as_json=as_json))
                if on_progress is not None:
                    on_progress(count)
    return 0


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
    from palpable._cli.json_values import encode_json
    from palpable._cli.outcomes import value_fields

    fields = value_fields(line.future.result())
    if as_json:
        encoded = encode_json({"line": line.number, "task_id": line.future.task_id, **fields})
    else:
        encoded = fields["result"] if "result" in fields else encode_json(fields["result_repr"])
    return f"{bytes(encoded).decode()}\n"


def _fail(line: Line, error: BaseException, *, as_json: bool) -> int:
    """Say what became of a line; return the exit code."""
    from palpable._cli.outcomes import error_exit_code, say_error
    from palpable._wire.error_names import class_name

    exit_code = error_exit_code(error)
    if as_json:
        name = class_name(type(error)).removeprefix("builtins.")
        what = {"error_type": name, "error_message": str(error), "exit_code": exit_code}
        print_json({"line": line.number, "task_id": line.future.task_id, **what})
    else:
        say_error(error, f"line {line.number}: ")
    return exit_code


def _bar(is_wanted: bool, name: str) -> AbstractContextManager[Callable[[int], None] | None]:
    if not is_wanted:
        return nullcontext()
    from palpable._connection.progress_bar import progress_bar

    return progress_bar(name, None)
