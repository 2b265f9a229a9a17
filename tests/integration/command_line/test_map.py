"""`palpable map`: a function over the lines of the input."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable import Client
from support.command_line import PALPABLE, Serve, answer, palpable, remove_folders_of_the_killed, started
from support.wait import wait_until

pytestmark = pytest.mark.usefixtures("default_server")

PROJECT = """\
import os
import time

import palpable


class Point:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Point({self.x})"


def half(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def wait_for(path):
    while path and not os.path.exists(path):
        time.sleep(0.005)
    return path


def leave(code):
    os._exit(code)


@palpable.task(tags=["own"], name="a tagged one")
def tagged(value):
    return value
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a module that the server was not told of."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "of_project.py").write_text(PROJECT)
    return folder


def test_results_come_in_the_order_of_the_lines() -> None:
    lines = "".join(f"{number * number}\n" for number in range(100))
    assert answer("map", "math:isqrt", stdin=lines).split() == [str(number) for number in range(100)]


def test_lines_are_json_values_and_so_are_results() -> None:
    assert answer("map", "builtins:sorted", stdin='[3, 1]\n\n{"b": 1, "a": 2}\n"ba"') == '[1,3]\n["a","b"]\n["a","b"]\n'


def test_with_text_each_line_is_a_string_as_it_is() -> None:
    assert answer("map", "--text", "builtins:str", stdin='ä "b"\n\n3\r\nlast') == '"ä \\"b\\""\n""\n"3"\n"last"\n'


def test_what_is_no_json_is_its_repr_as_a_string(project: Path) -> None:
    assert answer("map", "of_project:Point", stdin="1\n2\n", folder=project) == '"Point(1)"\n"Point(2)"\n'


def test_no_lines_are_no_results() -> None:
    assert answer("map", "math:sqrt") == ""


def test_unordered_results_come_as_they_are_there(project: Path, tmp_path: Path) -> None:
    lines = json.dumps(str(tmp_path / "go")) + '\n""\n'
    with started("map", "--unordered", "of_project:wait_for", folder=project) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(lines)
        process.stdin.flush()
        assert process.stdout.readline() == '""\n'
        (tmp_path / "go").touch()
        assert process.communicate(timeout=20) == (json.dumps(str(tmp_path / "go")) + "\n", "")
        assert process.returncode == 0


@pytest.mark.parametrize("options", [[], ["--unordered"], ["--isolation", "worker"], ["--window", "1"]])
def test_a_result_is_there_before_the_next_line_is(options: list[str]) -> None:
    with started("map", "math:isqrt", *options) as process:
        assert process.stdin is not None and process.stdout is not None
        for number in (4, 9, 16):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{int(number**0.5)}\n"
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0


def test_no_more_lines_are_read_than_the_window_allows(project: Path, tmp_path: Path, client: Client) -> None:
    lines = (json.dumps(str(tmp_path / "go")) + "\n") * 50
    with started("map", "--window", 3, "of_project:wait_for", folder=project) as process:
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.flush()
        wait_until(lambda: len(client.tasks()) == 3)
        (tmp_path / "go").touch()
        assert process.communicate(timeout=30)[0] == lines
    assert len(client.tasks()) == 50


def test_many_small_ones_in_kept_processes_are_all_there_in_order() -> None:
    lines = "".join(f"{number}\n" for number in range(5000))
    assert answer("map", "builtins:abs", "--isolation", "worker", stdin=lines) == lines


def test_the_first_failure_ends_it_and_says_which_line(project: Path) -> None:
    result = palpable("map", "of_project:half", stdin="2\n4\n5\n8\n", folder=project)
    assert (result.returncode, result.stdout) == (1, "1\n2\n")
    assert "of_project.py" in result.stderr
    assert result.stderr.splitlines()[-1] == "palpable: line 3: ValueError: 5 is odd"


def test_the_exit_code_is_that_of_the_failure(project: Path) -> None:
    result = palpable("map", "of_project:leave", stdin="7\n", folder=project)
    assert result.returncode == 3 and "exited with code 7" in result.stderr
    result = palpable("map", "of_project:nothing", stdin="7\n", folder=project)
    assert result.returncode == 2 and "there is no 'nothing'" in result.stderr


def test_a_failure_is_said_as_run_and_wait_say_it(project: Path, client: Client) -> None:
    (project / "own.py").write_text("class Mine(Exception): ...\ndef fail(line):\n    raise Mine('no money')\n")
    result = palpable("map", "own:fail", stdin="1\n", folder=project)
    assert result.stderr.splitlines()[-1] == "palpable: line 1: own.Mine: no money"
    found = json.loads(palpable("map", "--json", "own:fail", stdin="1\n", folder=project).stdout)
    assert (found["error_type"], found["error_message"]) == ("own.Mine", "no money")


def test_a_line_whose_task_somebody_cancels_ends_it_as_run_ends(project: Path, tmp_path: Path, client: Client) -> None:
    with started("map", "of_project:wait_for", folder=project) as process:
        (task_id,) = _submit(process, tmp_path, 1)
        client.cancel(task_id)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == 4
    assert errors.startswith("palpable: line 1: ") and "was cancelled" in errors


def test_what_json_has_no_number_for_is_a_string_its_repr() -> None:
    assert answer("map", "builtins:float", stdin='"nan"\n"1"\n') == '"nan"\n1.0\n'
    first = json.loads(answer("map", "--json", "builtins:float", stdin='"nan"\n'))
    assert first["result_repr"] == "nan" and "result" not in first


def test_a_line_that_is_no_json_ends_it_after_those_before(project: Path) -> None:
    result = palpable("map", "math:isqrt", stdin="4\n\nfour\n")
    assert (result.returncode, result.stdout) == (2, "2\n")
    assert result.stderr.startswith("palpable: line 3 is not JSON") and "--text" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_tasks_end_with_the_command(number: signal.Signals, project: Path, tmp_path: Path, client: Client) -> None:
    with started("map", "of_project:wait_for", folder=project) as process:
        assert process.stdin is not None
        process.stdin.write('""\n' + (json.dumps(str(tmp_path / "never")) + "\n") * 5)
        process.stdin.flush()
        assert process.stdout is not None
        assert process.stdout.readline() == '""\n'
        process.send_signal(number)
        process.wait(timeout=20)  # its input is still open: nothing waits for that
        assert process.returncode == 128 + number
    wait_until(lambda: {task.state for task in client.tasks()} == {"succeeded", "cancelled"})


@pytest.mark.usefixtures("stale_socket")
def test_what_ctrl_c_could_not_cancel_is_said(
    default_server: subprocess.Popen[str], project: Path, tmp_path: Path
) -> None:
    constants = {"palpable._cli.attended_task.CANCEL_SECONDS": 0.2}
    with started("map", "of_project:wait_for", folder=project, constants=constants) as process:
        task_ids = _submit(process, tmp_path, 2)
        _kill(default_server)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (130, "")
    assert errors.rstrip() == (
        "palpable: 2 tasks could not be cancelled now. "
        f"When the server is back: palpable cancel {task_ids[0]} {task_ids[1]}"
    )


def test_of_many_that_could_not_be_cancelled_it_is_said_how_to_find_them(
    default_server: subprocess.Popen[str], serve: Serve, project: Path, tmp_path: Path
) -> None:
    with Client() as client:
        other = client.submit(time.sleep, 1000).task_id
        constants = {"palpable._cli.attended_task.CANCEL_SECONDS": 0.2}
        with started("map", "of_project:wait_for", folder=project, constants=constants) as process:
            _submit(process, tmp_path, 22)
            _kill(default_server)
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=20)
        assert (process.returncode, output) == (143, "")
        said, _, advice = errors.partition(" When the server is back: ")
        assert said == "palpable: 22 tasks could not be cancelled now."
        serve()
        command = advice.strip().replace("palpable ", f"{shlex.join(PALPABLE)} ")
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=40)
        assert result.stdout.count(": cancelled") == 22, result
        wait_until(lambda: [task.task_id for task in client.tasks(["ready", "running"])] == [other])
        client.cancel(other)


@pytest.mark.usefixtures("stale_socket")
def test_when_the_server_stays_away_it_is_said_what_becomes_of_the_tasks(
    default_server: subprocess.Popen[str], project: Path, tmp_path: Path
) -> None:
    constants = {"palpable._connection.reconnecting.DURABLE_SECONDS": 0.5}
    with started("map", "of_project:wait_for", folder=project, constants=constants) as process:
        task_ids = _submit(process, tmp_path, 2)
        _kill(default_server)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors.count("\n")) == (2, "", 1)
    assert "2 tasks at most, is kept" in errors and errors.endswith(f"palpable cancel {task_ids[0]} {task_ids[1]}\n")
    assert "next call" not in errors


@pytest.mark.usefixtures("stale_socket")
def test_tasks_that_were_in_memory_alone_are_not_said_to_be_kept(
    default_server: subprocess.Popen[str], serve: Serve, project: Path, tmp_path: Path
) -> None:
    answer("stop")
    default_server.wait(timeout=20)
    server = serve("--store", "none")
    with started("map", "of_project:wait_for", folder=project) as process:
        _submit(process, tmp_path, 2)
        _kill(server)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == 2
    assert "kept" not in errors and "cancel" not in errors


def _submit(process: subprocess.Popen[str], tmp_path: Path, count: int) -> list[str]:
    """Give a map of `wait_for` so many lines; return the ids of their tasks, when the server has them."""
    assert process.stdin is not None
    process.stdin.write((json.dumps(str(tmp_path / "never")) + "\n") * count)
    process.stdin.flush()
    with Client() as client:
        submitted = wait_until(
            lambda: [
                found
                for found in [[task.task_id for task in client.tasks() if task.name == "of_project:wait_for"]]
                if len(found) == count
            ]
        )
    return submitted[0][::-1]


def _kill(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    remove_folders_of_the_killed()


@pytest.fixture
def stale_socket(home: Path) -> Iterator[None]:
    """The socket file of a server that the test kills, and that none comes after, is removed."""
    yield
    (home / "server.sock").unlink()


def test_it_outlives_the_restart_of_the_server(
    default_server: subprocess.Popen[str], serve: Serve, project: Path, tmp_path: Path
) -> None:
    lines = "".join(f"{json.dumps(path)}\n" for path in ["", str(tmp_path / "go"), ""] * 3)
    with started("map", "of_project:wait_for", folder=project) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(lines)
        process.stdin.flush()
        assert process.stdout.readline() == '""\n'
        _kill(default_server)
        (tmp_path / "go").touch()
        serve()
        output, errors = process.communicate(timeout=40)
    assert (process.returncode, errors) == (0, "")
    assert '""\n' + output == lines


def test_a_reader_that_has_gone_ends_it_quietly(client: Client) -> None:
    command = " ".join(PALPABLE).replace(sys.executable, f"'{sys.executable}'")
    result = subprocess.run(
        ["sh", "-c", f"yes 1 | {command} map builtins:abs --isolation worker | head -n 2"],
        capture_output=True,
        text=True,
        timeout=40,
        env=dict(os.environ),
    )
    assert result.stdout == "1\n1\n"
    assert "Traceback" not in result.stderr
    wait_until(lambda: not {"ready", "running"} & {task.state for task in client.tasks(limit=10_000)})


def test_a_bar_does_not_keep_results_from_where_they_go(tmp_path: Path) -> None:
    """With stderr a terminal and stdout a file."""
    leader, follower = os.openpty()
    with open(tmp_path / "results", "w") as results:
        process = subprocess.Popen(
            [*PALPABLE, "map", "math:isqrt"], stdin=subprocess.PIPE, stdout=results, stderr=follower, text=True
        )
    os.close(follower)
    process.communicate("4\n9\n", timeout=40)
    shown = os.read(leader, 1 << 16)
    os.close(leader)
    assert (tmp_path / "results").read_text() == "2\n3\n"
    assert b"math:isqrt" in shown and process.returncode == 0


def test_the_options_of_the_function_count_where_none_is_given(project: Path, client: Client) -> None:
    assert answer("map", "of_project:tagged", "--name", "renamed", stdin="1\n2\n", folder=project) == "1\n2\n"
    assert [task.name for task in client.tasks(tags="own")] == ["renamed"] * 2


def test_as_json_each_result_says_of_which_line_and_task_it_is(project: Path, client: Client) -> None:
    result = palpable("map", "--json", "of_project:half", stdin="2\n4\n\n5\n6\n", folder=project)
    assert result.returncode == 1 and result.stderr == ""
    *good, bad = map(json.loads, result.stdout.splitlines())
    assert [(found["line"], found["result"]) for found in good] == [(1, 1), (2, 2)]
    assert {found["task_id"] for found in [*good, bad]} <= {task.task_id for task in client.tasks()}
    assert (bad["line"], bad["error_type"], bad["error_message"]) == (4, "ValueError", "5 is odd")


def test_as_json_what_is_no_json_is_told_apart(project: Path) -> None:
    line = answer("map", "--json", "of_project:Point", stdin="1\n", folder=project)
    assert json.loads(line)["result_repr"] == "Point(1)"
