"""The list of commands is that of the modules, and each says what it does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import palpable
from palpable._cli import commands
from palpable._cli.ending import run
from palpable._cli.main import SECTIONS, command_line

COMMANDS = {name: text for section in SECTIONS.values() for name, text in section.items()}


def test_every_module_of_a_command_is_listed() -> None:
    modules = {path.stem for path in Path(commands.__path__[0]).glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in COMMANDS} == modules


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_the_list_say_the_same_of_it(name: str) -> None:
    with click.Context(command_line) as context:
        command = command_line.get_command(context, name)
    assert command is not None and command.help is not None
    # The list says it in a few words, the command in a whole sentence that begins alike.
    assert command.help.split()[0] == COMMANDS[name].split()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    with click.Context(command_line) as context:
        command = command_line.get_command(context, name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and parameter.help.endswith((".", "]", ")")), parameter.name
    result = CliRunner().invoke(command_line, [name, "--help"])
    assert result.exit_code == 0
    assert all(len(line) <= 100 for line in result.output.splitlines() if "palpable serve --host" not in line)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown_by_an_example(name: str) -> None:
    output = CliRunner().invoke(command_line, [name, "--help"]).output
    assert re.search(rf"^  .*palpable {name}\b", output.partition("Usage:")[2].partition("\n")[2], re.MULTILINE)


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    output = CliRunner().invoke(command_line, ["--help"]).output
    for text in [*COMMANDS.values(), "Exit codes", "PALPABLE_URL"]:
        assert text in output


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_that_of_the_package(option: str) -> None:
    assert CliRunner().invoke(command_line, [option]).output == f"palpable {palpable.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_docs(name: str) -> None:
    assert f"    palpable {name} " in (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["status", "--no-such-option"],
        ["logs"],
        ["cancel"],
        ["tasks", "--state", "sleeping"],
        ["tasks", "--limit", "0"],
        ["status", "--host", "somewhere"],
        ["status", "--socket", "s", "--port", "1"],
        ["status", "--url", "http://somewhere"],
        ["serve", "--workers", "0"],
        ["serve", "--isolation", "none"],
        ["serve", "--task-timeout-seconds", "-1"],
        ["serve", "--tls-key", "x"],
        ["stop", "--timeout-seconds", "soon"],
        ["stop", "--now", "--drain-seconds", "1"],
        ["stop", "--drain-seconds", "-1"],
        ["serve", "--drain-seconds", "-1"],
        ["drain", "--off", "--wait"],
        ["drain", "--timeout", "1s"],
        ["purge"],
        ["purge", "--all", "--state", "failed"],
        ["purge", "--state", "running"],
        ["purge", "--older-than", "x"],
        ["wait", "--timeout", "soon", "x"],
        ["show"],
        ["completion", "tcsh"],
        ["map"],
        ["map", "sqrt"],
        ["map", "math:sqrt", "math:sin"],
        ["map", "math:sqrt", "--window", "0"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_that_leads_to_the_help(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command_line, arguments) == 2
    output, errors = capfd.readouterr()
    assert not output
    assert errors.count("\n") == 1 and "--help`" in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "module:function"),
        (["--"], "no command after --"),
        (["ls"], "palpable run -- ls"),
        (["os:"], "module:function"),
        (["os.path.join"], "module:function"),
        (["math:sqrt", "--", "ls"], "not both"),
        (["--args", "[1]", "--", "ls"], "--args and --kwargs are for functions"),
        (["math:sqrt", "--args", "[1"], "--args is not JSON"),
        (["math:sqrt", "--args", "1"], "--args must be a JSON list"),
        (["math:sqrt", "--kwargs", "[1]"], "--kwargs must be a JSON object"),
        (["math:sqrt", "--timeout", "0"], "--timeout"),
        (["math:sqrt", "--timeout", "soon"], "no length of time"),
        (["math:sqrt", "--delay", "-1"], "no length of time"),
        (["math:sqrt", "--retries", "-1"], "--retries"),
        (["math:sqrt", "--priority", "high"], "--priority"),
        (["math:sqrt", "--isolation", "none"], "--isolation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_what_to_run_is_one_line_that_says_what_is_meant(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command_line, ["run", *arguments]) == 2
    output, errors = capfd.readouterr()
    assert not output
    assert errors.count("\n") == 1 and says in errors


def test_without_a_command_the_help_is_shown_and_it_is_a_mistake(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command_line, []) == 2
    output, errors = capfd.readouterr()
    assert not output
    assert errors.startswith("Usage: ")
