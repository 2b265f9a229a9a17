"""Task ids on the command line, and their completion in the shell."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from palpable._cli.server_options import ServerChoice
from palpable.units.task_exceptions import PalpableError

SHOWN_COUNT = 50
PATIENCE_SECONDS = 1.0


def task_id_argument(*, many: bool, states: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the argument TASK_ID, as the parameter `task_id`, or `task_ids` if there may be many.

    Args:
        states: complete only the ids of tasks in these states; none: of all.
    """

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [item for item in _items(ctx, states) if item.value.startswith(incomplete)]

    if many:
        return click.argument("task_ids", metavar="TASK_ID...", nargs=-1, required=True, shell_complete=complete)
    return click.argument("task_id", metavar="TASK_ID", shell_complete=complete)


def _items(ctx: click.Context, states: tuple[str, ...]) -> list[CompletionItem]:
    from palpable._connection.questions import list_tasks

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError

    names = [field.name for field in dataclasses.fields(ServerChoice)]
    server = ServerChoice(**{name: ctx.params.get(name) for name in names})
    # Who pressed the tab key waits, also for a server that is there and does not answer.
    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    try:
        with server.connection() as connection:
            tasks = list_tasks(connection, states, SHOWN_COUNT)
    except (PalpableError, click.ClickException, OSError):
        return []  # a shell that completes is no place for messages
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return [CompletionItem(task.task_id, help=f"{task.name} {task.state}") for task in tasks]
