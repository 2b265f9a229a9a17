"""What every command prints alike: JSON, and colours where they are wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])

STATE_COLOURS = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


def json_option(function: F) -> F:
    """Give a command the option `--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(function)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(msgspec.json.encode(value).decode())


def fields_of(struct: msgspec.Struct) -> dict[str, Any]:
    """Return all fields of a message, also those that the wire leaves out because they have their default."""
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def has_colours() -> bool:
    """Whether stdout is a terminal with colours, and nobody objects (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Return the width of the terminal; None if stdout is not one, and lines can be as long as they like."""
    if not sys.stdout.isatty():
        return None
    import shutil  # it brings the modules of three compressors along

    return shutil.get_terminal_size().columns


def one_line(text: str) -> str:
    """Return a text that somebody else chose, fit for a line of a table: nothing in it moves the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)
