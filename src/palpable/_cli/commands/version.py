"""`palpable version`: which Palpable this is."""

from __future__ import annotations

import platform

import click

import palpable
from palpable._cli.output import json_option, print_json


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show which Palpable this is, and the Python it runs on.

    \b
    Example:
      palpable version --json | jq -r .palpable
    """
    if as_json:
        print_json({"palpable": palpable.__version__, "python": platform.python_version()})
    else:
        click.echo(f"palpable {palpable.__version__}, Python {platform.python_version()}")
