"""The options that say how tasks are to be run."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from palpable._cli.duration_type import Duration

if TYPE_CHECKING:
    from palpable._connection.address import Address

OPTIONS = [
    click.option("--name", metavar="TEXT", help="Shown in lists in place of what is run."),
    click.option("--tag", "tags", multiple=True, metavar="TEXT", help="To find it by; may be given several times."),
    click.option(
        "--timeout", type=Duration(0.001), metavar="DURATION", help="Killed if an attempt takes longer (90, 5m, 1.5h)."
    ),
    click.option(
        "--priority",
        type=click.IntRange(-1_000_000, 1_000_000),
        metavar="N",
        help="Higher runs earlier. [default: 0]",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 1000),
        metavar="N",
        help="Further attempts after one that failed or took too long. [default: 0]",
    ),
    click.option(
        "--crash-retries",
        type=click.IntRange(0, 1000),
        metavar="N",
        help="Further attempts after one whose process died. [default: 0]",
    ),
    click.option("--delay", type=Duration(), metavar="DURATION", help="Not before this time is over."),
    click.option(
        "--isolation",
        type=click.Choice(["task", "worker"]),
        help="A fresh process, or one that ran other tasks. [default: the server's]",
    ),
    click.option(
        "--folder",
        metavar="FOLDER",
        help="Where it runs. [default: the current folder; on another machine, the server's]",
    ),
]


@dataclasses.dataclass(frozen=True)
class TaskChoice:
    """How the options want tasks to be run. None, and no tags: nothing is said, and the function's options count."""

    name: str | None = None
    tags: tuple[str, ...] = ()
    timeout: float | None = None
    priority: int | None = None
    retries: int | None = None
    crash_retries: int | None = None
    delay: float | None = None
    isolation: Any = None
    folder: str | None = None

    def options(self, **more: Any) -> dict[str, Any]:
        """Return what was chosen, and nothing else, as `Client.options` takes it.

        Args:
            more: options that only this command has.

        Raises:
            click.UsageError: it is out of range; the message names it.
        """
        from palpable.units.task_options import checked_fields

        said = {
            "isolation": self.isolation,
            "timeout_seconds": self.timeout,
            "priority": self.priority,
            "retries": self.retries,
            "crash_retries": self.crash_retries,
            "delay_seconds": self.delay,
            "name": self.name,
            "tags": self.tags or None,
            **more,
        }
        chosen = {name: value for name, value in said.items() if value is not None}
        try:
            checked_fields(chosen)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from None
        return chosen

    def folder_at(self, address: Address) -> str:
        """Return where tasks of the server at `address` are to run; "": where it was started."""
        if self.folder is not None:
            return os.path.abspath(self.folder)
        return os.getcwd() if is_here(address) else ""


def is_here(address: Address) -> bool:
    """Return whether the server at `address` is on this machine."""
    return bool(address.path) or address.host in ("localhost", "127.0.0.1", "::1")


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of this module, as one parameter `how`."""

    @functools.wraps(command)
    def with_choice(**kwargs: Any) -> Any:
        names = [field.name for field in dataclasses.fields(TaskChoice)]
        return command(how=TaskChoice(**{name: kwargs.pop(name) for name in names}), **kwargs)

    for option in reversed(OPTIONS):
        with_choice = option(with_choice)
    return with_choice


def check_path(path: str) -> str:
    """Return `path` if it names a function as `module:function` does.

    Raises:
        click.UsageError: it does not; the message of `run` says how to run a command instead.
    """
    module, colon, name = path.partition(":")
    if colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        return path
    advice = ""
    if click.get_current_context().info_name == "run":
        advice = f". A command comes after --, as in: palpable run -- {path}"
    raise click.UsageError(f"{path!r} is no function: write module:function, as in os.path:getsize{advice}")
