"""`palpable completion`: what makes a shell complete commands, options and task ids."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes a shell complete commands, options, states and, if the server runs, task ids.

    \b
    Bash, once for all, into ~/.bashrc:
      eval "$(palpable completion bash)"
    Zsh, into ~/.zshrc:
      eval "$(palpable completion zsh)"
    Fish:
      palpable completion fish > ~/.config/fish/completions/palpable.fish
    """
    from click.shell_completion import get_completion_class

    from palpable._cli.ending import COMPLETE_VARIABLE

    root = click.get_current_context().find_root()
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    # Not `source()`, which first asks the shell for its version: this one may be for another machine.
    completion = completion_class(root.command, {}, "palpable", COMPLETE_VARIABLE)
    click.echo(completion.source_template % completion.source_vars())
