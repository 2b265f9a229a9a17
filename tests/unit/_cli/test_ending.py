"""Every expected failure is one line on stderr and an exit code that means something."""

from __future__ import annotations

import click
import pytest

from palpable._cli.ending import Failure, NotAsked, run
from palpable.units.task_exceptions import AuthenticationFailed, ServerError, ServerUnreachable, UnknownTask


def _ending_with(what: BaseException | int | None) -> click.Group:
    @click.group("palpable")
    def group() -> None:
        pass

    @group.command()
    @click.option("--number", type=int)
    def act(number: int | None) -> int | None:
        if isinstance(what, BaseException):
            raise what
        return what

    return group


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_what_a_command_returns_is_its_exit_code(returned: int | None, code: int) -> None:
    assert run(_ending_with(returned), ["act"]) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("the answer is no"), 1),
        (NotAsked("nobody is there"), 2),
        (ServerUnreachable("no server"), 2),
        (AuthenticationFailed("not the key"), 2),
        (ServerError("refused"), 1),
        (UnknownTask("no task x"), 1),
        (PermissionError(13, "denied", "/x"), 1),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), 2),
    ],
)
def test_an_expected_failure_is_one_line(error: Exception, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(_ending_with(error), ["act"]) == code
    output, errors = capfd.readouterr()
    assert not output
    assert errors.startswith("palpable: ") and errors.count("\n") == 1
    assert str(error) in errors or isinstance(error, click.ClickException | UnicodeEncodeError)


def test_an_unknown_task_leads_to_the_list_of_tasks(capfd: pytest.CaptureFixture[str]) -> None:
    run(_ending_with(UnknownTask("no task x")), ["act"])
    assert capfd.readouterr().err == "palpable: no task x. See `palpable tasks`.\n"


@pytest.mark.parametrize("args", [["nothing"], ["act", "--number", "x"], ["act", "--nothing"], ["act", "too", "many"]])
def test_a_mistake_in_the_options_is_one_line_that_leads_to_the_help(
    args: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(_ending_with(None), args) == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert "--help`." in errors


def test_ctrl_c_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(_ending_with(KeyboardInterrupt()), ["act"]) == 130
    assert not "".join(capfd.readouterr()).strip()


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(_ending_with(ZeroDivisionError()), ["act"])
