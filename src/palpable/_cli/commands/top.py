"""`palpable top`: what the server does, live."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import click

from palpable._cli.output import has_colours, json_option, print_json, terminal_width
from palpable._cli.server_options import ServerChoice, server_options
from palpable._cli.signals import ending_by_exception

if TYPE_CHECKING:
    from palpable._cli.top_view import Look
    from palpable.units.client import Client


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    default=1,
    show_default=True,
    help="Look so often.",
)
@click.option("--once", is_flag=True, help="Print one page and end; so it does where there is no screen to draw on.")
@json_option
@server_options
def command(server: ServerChoice, interval: float, once: bool, as_json: bool) -> None:
    """Show what the server does, live: workers and their tasks, the queue, what ended last, and the throughput.

    CPU is the share of one core that a task's process tree used since the last look (at first: in its life), memory
    what it holds now. Tasks that wait for others have no worker. The server is asked only as often as the page is
    drawn. Ends with q or Ctrl-C.

    \b
    Examples:
      palpable top
      palpable top --once --json | jq '.running[].name'
    """
    from palpable._cli.top_view import look, page_lines

    # A page is drawn in any case, and says that there is no server: it does not wait for one.
    with server.client(reconnect_seconds=0) as client:
        has_screen = sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        if as_json or once or not has_screen:
            seen = look(client._get_connection(), time.monotonic())
            if as_json:
                print_json(_as_object(seen))
                return
            for line in page_lines(seen, None, width=terminal_width(), has_colours=has_colours()):
                click.echo(line)
            return
        _show_live(client, interval)


def _as_object(seen: Look) -> dict[str, object]:
    from palpable._cli.task_table import as_object
    from palpable._cli.top_view import throughput_of

    return {
        "url": seen.url,
        **seen.status,
        "throughput": throughput_of(seen, None),
        "running": [as_object(task) for task in seen.running],
        "queued": [as_object(task) for task in seen.queued],
        "last_ended": [as_object(task) for task in seen.ended],
    }


def _show_live(client: Client, interval: float) -> None:
    """Draw page after page until q is pressed. The terminal is then as it was, however this ends."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from palpable._cli.keyboard import key_within, single_keys
    from palpable._cli.top_view import HISTORY_WIDTH, look, page_lines, throughput_of
    from palpable.units.task_exceptions import PalpableError

    console = Console()
    history: deque[float] = deque(maxlen=HISTORY_WIDTH)
    before: Look | None = None
    now: Look | None = None
    with ending_by_exception(), single_keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            trouble = ""
            try:
                before, now = now, look(client._get_connection(), time.monotonic())
            except PalpableError as error:
                trouble = f"No answer, trying again: {error}"
            lines: list[str] = [trouble] if trouble else []
            if now is not None and not trouble:
                if before is not None:
                    history.append(throughput_of(now, before))
                width, height = console.size
                lines = page_lines(
                    now, before, history=history, width=width, height=height - 1, has_colours=has_colours()
                )
            live.update(Text.from_ansi("\n".join([*lines, "q ends"])), refresh=True)
            if key_within(interval)[:1] in ("q", "Q", "\x04"):
                return
