"""`palpable run`: a function or a command in a task."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from palpable._cli.ending import INTERRUPTED, NotAsked, say_at_end, without_next_call
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.signals import ending_by_exception
from palpable._cli.task_options import TaskChoice, check_path, is_here, task_options
from palpable.units.task_exceptions import ServerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from palpable._wire.messages import TaskReport


class RunCommand(click.Command):
    """Takes what comes after `--` as it is, as the parameter `words`; click itself would not tell it from the rest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        if "--" in args:
            place = args.index("--")
            args, words = args[:place], args[place + 1 :]
            if not words:
                raise click.UsageError("there is no command after --", ctx)
        rest = super().parse_args(ctx, args)
        ctx.params["words"] = words
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS] MODULE:FUNCTION  |  [OPTIONS] -- COMMAND [ARG]..."]


@click.command(cls=RunCommand)
@click.argument("path", metavar="MODULE:FUNCTION", required=False)
@click.option("--args", "args_text", metavar="JSON", help="The function's arguments, as a JSON list.")
@click.option("--kwargs", "kwargs_text", metavar="JSON", help="Its arguments by keyword, as a JSON object.")
@task_options
@click.option(
    "--key",
    metavar="TEXT",
    help="The same key is the same task: where it ran or runs already, it is not run again, and its result is shown.",
)
@click.option("-d", "--detach", is_flag=True, help="Print the task's id and leave; the task goes on.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what the task prints; `palpable logs` still does.")
@json_option
@server_options
def command(
    server: ServerChoice,
    how: TaskChoice,
    path: str | None,
    words: list[str],
    args_text: str | None,
    kwargs_text: str | None,
    key: str | None,
    detach: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run a function, or any command, as a task, and wait for its end.

    A function is imported inside the task, in a process of its own; modules of the current folder are found, as with
    `python -m`. What it returns is printed as JSON if it can be, else as its repr; what it prints goes to stderr
    meanwhile. The options that it has by @palpable.task(...) count where none is given here.

    A command comes after --; what it prints, to stdout or stderr, goes to stdout. It has no input, and the
    environment of the server. Output is text, and is kept up to the server's limit (1 MB): data belongs into files.

    The exit code is the task's outcome: 0 succeeded, 1 failed with an error, 3 crashed, 4 cancelled, 5 the server
    stopped, 124 timed out; that of a command is its own. Ctrl-C, SIGTERM and a terminal that closes end the task.

    \b
    Examples:
      palpable run math:hypot --args '[3, 4]'
      palpable run reports:build --kwargs '{"month": 11}' --timeout 10m --retries 2
      palpable run --detach --tag nightly -- make -j4 test
      palpable run --key "report $(date +%F)" reports:build
    """
    options = how.options(idempotency_key=key)
    call = _call(path, words, args_text, kwargs_text)
    with ending_by_exception(), server.client() as client:
        from palpable._cli.attended_task import attend, cancel_soon, id_for, submit

        folder = how.folder_at(server.address())
        function, args, kwargs, name = call(folder)
        if path is None:
            view = client.options(**options)
        else:
            from palpable._cli.function_options import view_for

            where = is_here(server.address())
            view = view_for(client, options, path, folder, is_here=where, timeout_seconds=how.timeout)
        connection = client._get_connection()
        task_id = id_for(view)
        is_accepted = False
        try:
            submit(view, task_id, function, args, kwargs, name)
            is_accepted = True
            if not detach:
                report = attend(connection, task_id, None if quiet else _printer(to_stderr=not words or as_json))
        except BaseException as error:
            # With a key others may wait for the same task.
            is_cancelled = key is None and cancel_soon(connection, [task_id])
            is_interrupt = isinstance(error, KeyboardInterrupt)
            if is_interrupt or (isinstance(error, SystemExit) and not is_cancelled):
                fate = _fate(task_id, has_key=key is not None, is_cancelled=is_cancelled)
                say_at_end(f"palpable: task {task_id} {fate}.")
            if is_interrupt:
                return INTERRUPTED
            is_kept = is_accepted and not is_cancelled and connection.info.get("is_durable")
            if isinstance(error, ServerUnreachable) and is_kept:
                raise NotAsked(
                    f"{without_next_call(error)} The task is kept, and run by the next server on the same store: "
                    f"palpable wait {task_id}"
                ) from None
            raise
    if detach:
        if as_json:
            print_json({"task_id": task_id})
        else:
            click.echo(task_id)
        return 0
    return _show(report, is_command=bool(words), as_json=as_json)


def _fate(task_id: str, *, has_key: bool, is_cancelled: bool) -> str:
    """Return what becomes of a task whose command was interrupted."""
    if has_key:
        return "goes on, for its key"
    if is_cancelled:
        return "is cancelled. Start with --detach what is to go on"
    return f"could not be cancelled now. When the server is back: palpable cancel {task_id}"


def _call(path: str | None, words: Sequence[str], args_text: str | None, kwargs_text: str | None) -> Any:
    """Return what makes the call for a folder: the function, its arguments, and its name."""
    if words:
        if path is not None:
            raise click.UsageError(f"either a function or a command after --, not both {path!r} and {words[0]!r}")
        if args_text is not None or kwargs_text is not None:
            raise click.UsageError("--args and --kwargs are for functions; a command's come after it")
        from palpable._cli.shell_command import run_command

        return lambda folder: (run_command, (list(words), folder), {}, _short(words))
    if path is None:
        raise click.UsageError("name a function as module:function, or a command after --")
    check_path(path)
    args = _parsed(args_text, "--args", list, "list, as '[1, 2]'") if args_text is not None else []
    kwargs = _parsed(kwargs_text, "--kwargs", dict, "object, as '{\"n\": 1}'") if kwargs_text is not None else {}
    from palpable._cli.named_function import NamedFunction

    return lambda folder: (NamedFunction(path, folder), tuple(args), kwargs, path)


def _parsed(text: str, option: str, kind: type, meant: str) -> Any:
    from palpable._cli.json_values import parse_json

    try:
        value = parse_json(text, option)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not isinstance(value, kind):
        raise click.UsageError(f"{option} must be a JSON {meant}, not {text}")
    return value


def _short(words: Sequence[str]) -> str:
    """Return a command as lists show it."""
    import shlex

    from palpable._wire.sendable_text import sendable

    text = sendable(" ".join(map(shlex.quote, words)))
    return text if len(text) <= 60 else f"{text[:59]}…"


def _printer(*, to_stderr: bool) -> Callable[[str], None]:
    stream = sys.stderr if to_stderr else sys.stdout

    def show(piece: str) -> None:
        stream.write(piece)
        stream.flush()

    return show


def _show(report: TaskReport, *, is_command: bool, as_json: bool) -> int:
    from palpable._cli.outcomes import exit_code_of, report_object, result_fields, say_failure

    if as_json:
        print_json(report_object(report))
    elif report.outcome != "succeeded":
        say_failure(report, f"task {report.task_id} failed: " if report.outcome == "error" else "")
    elif not is_command:
        fields = result_fields(report)
        if "result_error" in fields:
            click.echo(f"palpable: {fields['result_error']}", err=True)
        elif "result" in fields:
            click.echo(bytes(fields["result"]).decode())
        else:
            click.echo(fields["result_repr"])
    return exit_code_of(report)
