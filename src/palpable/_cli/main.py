"""The entry point of the command line, and the list of its commands."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

import click

import palpable
from palpable._cli.ending import NOT_ASKED, run
from palpable._cli.lazy_group import LazyGroup
from palpable._cli.standard_streams import open_missing

SECTIONS: Final = {
    "The server": {
        "serve": "Run a task server here, until Ctrl-C.",
        "status": "Show what the server and its workers do.",
        "top": "Show what the server does, live.",
        "drain": "Have the server finish what runs, and start nothing more.",
        "stop": "Stop the server, and wait until it is gone.",
    },
    "New tasks": {
        "run": "Run a function, or any command, as a task.",
        "map": "Call a function with every line of the input, each in a task.",
        "retry": "Submit again what failed or was cancelled.",
    },
    "Its tasks": {
        "tasks": "List tasks, the newest first.",
        "show": "Show everything that is known of a task.",
        "logs": "Show what a task prints, also live.",
        "wait": "Wait until tasks have ended.",
        "cancel": "End tasks, running or not.",
        "purge": "Remove tasks that have ended.",
        "export": "Write all tasks and results, as JSON lines.",
    },
    "Palpable": {
        "doctor": "Check that tasks run from end to end.",
        "completion": "Print the script that makes a shell complete commands.",
        "version": "Show which Palpable this is.",
    },
}
"""Every command, in the order of the help. A new one is a new module in `commands` and a line here."""

EPILOG = """\
A command speaks with the default server of this user, the one that `palpable serve` makes, unless PALPABLE_URL or
--socket, --host and --port or --url say where another one is. The key is read from the file beside the socket, unless
PALPABLE_AUTHKEY, PALPABLE_AUTHKEY_FILE or --authkey-file say otherwise.

\b
Exit codes: 0 done; 1 the answer was no (an unknown task, nothing cancelled);
2 nobody could be asked (no server, wrong key, a mistake in the options).
Of a task: 1 failed, 3 crashed, 4 cancelled, 5 not run to its end by the server, 124 timed out.

\b
Examples:
  palpable serve &
  palpable run math:hypot --args '[3, 4]'
  palpable run -- make -j4 test
"""


@click.group(
    "palpable",
    cls=LazyGroup,
    sections=SECTIONS,
    package="palpable._cli.commands",
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(palpable.__version__, "--version", "-V", message="palpable %(version)s")
@click.pass_context
def command_line(ctx: click.Context) -> None:
    """A task server for one good machine: a fresh process for every task."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(NOT_ASKED)


def main() -> NoReturn:
    """Run the command that this process was started with, and exit."""
    open_missing()
    sys.exit(run(command_line))
