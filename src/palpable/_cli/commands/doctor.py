"""`palpable doctor`: does it work, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from palpable._cli.ending import FAILED
from palpable._cli.output import has_colours, json_option, one_line, print_json
from palpable._cli.server_options import ServerChoice, server_options

if TYPE_CHECKING:
    from palpable._cli.checkup import Check

MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "failed": ("FAILED", "red"), "skipped": ("-", "cyan")}


@click.command()
@json_option
@server_options
def command(server: ServerChoice, as_json: bool) -> int:
    """Check that tasks run from end to end, and say of what does not work what to do.

    Looks at the runtime folder, the key and the disks; connects; sends small tasks that print, return, start a child
    and are cancelled; and checks that each ran in a fresh process, that its output is kept, and that nothing is left.
    The exit code is 1 if a check failed.

    \b
    Examples:
      palpable doctor
      palpable doctor --json | jq -r '.checks[] | select(.state != "ok") | .advice'
    """
    checks: list[Check] = []
    for check in _checks(server):
        checks.append(check)
        if not as_json:
            _show(check)
    failed = [check.name for check in checks if check.state == "failed"]
    if as_json:
        print_json({"is_well": not failed, "checks": [check._asdict() for check in checks]})
    elif failed:
        click.echo(f"\n{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")
    else:
        click.echo("\nAll is well.")
    return FAILED if failed else 0


def _checks(server: ServerChoice) -> Iterator[Check]:
    from palpable._cli.checkup import Check, canary_checks, connection_check, surroundings
    from palpable.units.task_exceptions import PalpableError

    yield from surroundings(server)
    try:
        with server.client(reconnect_seconds=0) as client:
            yield from connection_check(server, client)
            yield from canary_checks(client, is_here=bool(server.address().path))
    except click.UsageError:
        raise
    except click.ClickException as error:
        yield Check("connection", "failed", error.format_message(), "Do as it says.")
    except PalpableError as error:
        yield Check(
            "connection", "failed", str(error), "Is the server running? See `palpable status` and its server.log."
        )


def _show(check: Check) -> None:
    mark, colour = MARKS[check.state]
    shown = click.style(f"{mark:<7}", fg=colour) if has_colours() else f"{mark:<7}"
    click.echo(f"{shown} {check.name:<18} {one_line(' '.join(check.found.split()))}")
    if check.advice and check.state != "ok":
        click.echo(f"{'':<27}{check.advice}")
