"""`palpable run`: functions and commands as tasks, and what the shell learns of their ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from palpable import Client, ServerUnreachable
from palpable._cli import attended_task
from palpable._cli.attended_task import submit
from palpable._cli.ending import run
from palpable._cli.main import command_line
from support.command_line import Serve, answer, palpable, refusal, started
from support.processes import wait_gone
from support.wait import wait_until

PROJECT = """\
import os
import sys
import time

import palpable


class Point:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Point({self.x})"

    @staticmethod
    def origin():
        return Point(0)


def add(first, second=1):
    print("adding")
    print("to stderr", file=sys.stderr)
    return first + second


def where():
    return [os.getcwd(), sys.path[0]]


def fail():
    raise ValueError("no number")


def leave(code):
    os._exit(code)


def stay(folder):
    print("staying", flush=True)
    open(os.path.join(folder, "staying"), "w").write(str(os.getpid()))
    time.sleep(1000)


def wait_for(path):
    print("before", flush=True)
    while not os.path.exists(path):
        time.sleep(0.005)
    print("after")


VALUE = 3


@palpable.task(retries=2, backoff_seconds=0, name="a patient one", tags=["own"], priority=5, isolation="worker")
def patient(path):
    with open(path, "a") as file:
        file.write("x")
    raise ValueError("not yet")
"""


def json_lines(*arguments: object) -> list[dict[str, Any]]:
    """What a command prints with --json."""
    return [json.loads(line) for line in answer(*arguments, "--json").splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a module that the server was not told of."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "of_project.py").write_text(PROJECT)
    return folder


pytestmark = pytest.mark.usefixtures("default_server")


# --- functions ----------------------------------------------------------------------------------------------------


def test_a_function_is_found_in_the_current_folder_and_its_result_is_json(project: Path) -> None:
    result = palpable("run", "of_project:add", "--args", "[1, 2]", folder=project)
    assert (result.returncode, result.stdout) == (0, "3\n")
    assert result.stderr.splitlines() == ["adding", "to stderr"]


def test_arguments_are_given_by_place_and_by_keyword(project: Path) -> None:
    options = ["--args", '["a"]', "--kwargs", '{"second": "ß"}']
    assert answer("run", "--quiet", "of_project:add", *options, folder=project) == '"aß"\n'


def test_a_function_runs_in_the_current_folder_or_in_another_that_is_named(project: Path, tmp_path: Path) -> None:
    assert json.loads(answer("run", "of_project:where", folder=project)) == [str(project)] * 2
    assert json.loads(answer("run", "of_project:where", "--folder", project, folder=tmp_path)) == [str(project)] * 2


def test_with_isolation_worker_the_folder_is_left_again(project: Path, client: Client) -> None:
    assert json.loads(answer("run", "--isolation", "worker", "of_project:where", folder=project))[0] == str(project)
    view = client.options(isolation="worker")
    assert all(view.run(_has_in_path, str(project)) == (False, os.getcwd()) for _ in range(4))


def _has_in_path(folder: str) -> tuple[bool, str]:
    import sys

    return folder in sys.path, os.getcwd()


def test_what_is_no_json_is_printed_as_its_repr(project: Path) -> None:
    assert answer("run", "of_project:Point.origin", folder=project) == "Point(0)\n"


def test_json_shows_all_there_is_to_know_of_the_end(project: Path) -> None:
    result = palpable("run", "--json", "of_project:add", "--args", "[1]", folder=project)
    ended = json.loads(result.stdout)
    assert (ended["outcome"], ended["exit_code"], ended["result"], ended["exit_status"]) == ("succeeded", 0, 2, 0)
    assert ended["peak_memory_bytes"] > 1_000_000 and ended["cpu_seconds"] > 0
    assert "adding" in result.stderr
    ended = json.loads(answer("run", "--json", "of_project:Point", "--args", "[1]", folder=project))
    assert ended["result_repr"] == "Point(1)" and "result" not in ended


def test_the_result_stays_on_the_server(project: Path, client: Client) -> None:
    task_id = json.loads(palpable("run", "--json", "of_project:add", "--args", "[1]", folder=project).stdout)["task_id"]
    assert client.result(task_id, timeout_seconds=0) == 2
    (task,) = client.tasks()
    assert task.name == "of_project:add"


def test_an_error_is_shown_with_its_traceback_and_in_one_line(project: Path) -> None:
    result = palpable("run", "of_project:fail", folder=project)
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Traceback") and "of_project.py" in lines[1]
    assert lines[-1].startswith("palpable: task ") and lines[-1].endswith("failed: ValueError: no number")


def test_a_crash_and_a_timeout_have_exit_codes_of_their_own(project: Path, tmp_path: Path) -> None:
    assert "exited with code 7" in refusal(3, "run", "of_project:leave", "--args", "[7]", "--folder", project)
    stay = ["run", "--quiet", "of_project:stay", "--args", json.dumps([str(tmp_path)])]
    assert "longer than its timeout" in refusal(124, *stay, "--folder", project, "--timeout", "300ms")


def test_a_task_that_somebody_cancels_has_an_exit_code_of_its_own(
    project: Path, tmp_path: Path, client: Client
) -> None:
    with started("run", "of_project:stay", "--args", json.dumps([str(tmp_path)]), folder=project) as process:
        wait_until((tmp_path / "staying").exists)
        client.cancel(client.tasks()[0].task_id)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 4
    assert "was cancelled" in errors and not output


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("os.no_such:f", "there is no module 'os.no_such'"),
        ("os.path:no_such", "there is no 'no_such' in os.path"),
        ("of_project:Point.no_such", "there is no 'no_such' in of_project.Point"),
        ("of_project:VALUE", "is a int, which can't be called"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_wrong_question(path: str, says: str, project: Path) -> None:
    assert says in refusal(2, "run", path, "--folder", project)


def test_a_module_that_is_there_and_fails_is_shown_with_its_traceback(project: Path) -> None:
    (project / "broken.py").write_text("import no_such_module\n")
    result = palpable("run", "broken:f", folder=project)
    assert result.returncode == 1
    assert "broken.py" in result.stderr and "ModuleNotFoundError" in result.stderr.splitlines()[-1]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "--folder" in refusal(2, "run", "math:sqrt", "--args", "[1]", "--folder", tmp_path / "nowhere")
    assert "--folder" in refusal(2, "run", "--folder", tmp_path / "nowhere", "--", "true")


# --- live ---------------------------------------------------------------------------------------------------------


def test_output_is_shown_live(project: Path, tmp_path: Path) -> None:
    arguments = ["--args", json.dumps([str(tmp_path / "go")])]
    with started("run", "of_project:wait_for", *arguments, folder=project) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "before\n"
        assert process.poll() is None
        (tmp_path / "go").touch()
        assert process.communicate(timeout=20) == ("null\n", "after\n")
        assert process.returncode == 0


def test_an_interrupt_ends_the_task_also_while_it_is_being_submitted(
    project: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        submit(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(attended_task, "submit", interrupted)
    monkeypatch.chdir(project)
    code = run(command_line, ["run", "of_project:stay", "--args", json.dumps([str(tmp_path)])])
    assert code == 130
    wait_until(lambda: [task.state for task in client.tasks()] == ["cancelled"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_task_ends_with_the_command(number: signal.Signals, project: Path, tmp_path: Path, client: Client) -> None:
    with started("run", "of_project:stay", "--args", json.dumps([str(tmp_path)]), folder=project) as process:
        wait_until((tmp_path / "staying").exists)
        pid = int(wait_until((tmp_path / "staying").read_text))
        process.send_signal(number)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + number
    if number == signal.SIGINT:
        assert "is cancelled" in errors and "--detach" in errors
    wait_gone([pid])
    wait_until(lambda: client.tasks()[0].state == "cancelled")


def test_it_outlives_the_restart_of_the_server(
    default_server: subprocess.Popen[str], serve: Serve, project: Path, tmp_path: Path
) -> None:
    """The task is run again by the next server, and its output and its result are those of that."""
    arguments = ["--args", json.dumps([str(tmp_path / "go")])]
    with started("run", "--json", "of_project:wait_for", *arguments, folder=project) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "before\n"
        answer("stop")
        default_server.wait(timeout=20)
        (tmp_path / "go").touch()
        serve()
        ended = json.loads(process.communicate(timeout=40)[0])
    assert (process.returncode, ended["outcome"], ended["attempt"]) == (0, "succeeded", 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_does_not_wait_for_a_server_that_is_gone_and_what_becomes_of_the_task_is_said(
    number: signal.Signals, default_server: subprocess.Popen[str], project: Path, tmp_path: Path
) -> None:
    constants = {"palpable._cli.attended_task.CANCEL_SECONDS": 0.2}
    args = ["--args", json.dumps([str(tmp_path)])]
    with started("run", "of_project:stay", *args, folder=project, constants=constants) as process:
        wait_until((tmp_path / "staying").exists)
        (task,) = json_lines("tasks")
        answer("stop")
        default_server.wait(timeout=20)
        process.send_signal(number)
        errors = process.communicate(timeout=20)[1]
        assert process.returncode == 128 + number
        assert "could not be cancelled now" in errors and f"palpable cancel {task['task_id']}." in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_leaves_a_task_with_a_key_says_so(number: signal.Signals, project: Path, tmp_path: Path) -> None:
    args = ["--key", "k", "--args", json.dumps([str(tmp_path)])]
    with started("run", "of_project:stay", *args, folder=project) as process:
        wait_until((tmp_path / "staying").exists)
        process.send_signal(number)
        assert "goes on, for its key." in process.communicate(timeout=20)[1]
        assert process.returncode == 128 + number


def test_a_terminal_that_closes_hears_nothing_and_the_exit_code_is_that_of_the_signal(
    default_server: subprocess.Popen[str], project: Path, tmp_path: Path
) -> None:
    """What is to be said can't be: stderr is an end of a terminal that is no more."""
    code = (
        "import os, sys\n"
        "from palpable._cli import attended_task\n"
        "from palpable._cli.main import main\n"
        "attended_task.CANCEL_SECONDS = 0.2\n"
        "main()\n"
    )
    leader, follower = os.openpty()
    args = ["run", "of_project:stay", "--args", json.dumps([str(tmp_path)])]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        cwd=project,
        process_group=0,
    )
    os.close(follower)
    try:
        wait_until((tmp_path / "staying").exists)
        answer("stop")
        default_server.wait(timeout=20)
        os.close(leader)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=20) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()


def test_a_server_that_stays_away_is_told_with_what_becomes_of_the_task(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], client: Client
) -> None:
    def find_it_away(*_: object) -> NoReturn:
        raise ServerUnreachable("the connection broke.")

    monkeypatch.setattr(attended_task, "attend", find_it_away)
    monkeypatch.setattr(attended_task, "cancel_soon", lambda *_: False)
    assert run(command_line, ["run", "math:sqrt", "--args", "[4]"]) == 2
    output, errors = capfd.readouterr()
    assert not output and errors.count("\n") == 1
    assert f"palpable wait {client.tasks()[0].task_id}" in errors


def test_an_exception_of_a_class_that_only_the_task_can_import_is_said_in_its_own_words(project: Path) -> None:
    (project / "own.py").write_text(
        "class Mine(Exception): ...\n"
        "class Outer:\n    class Inner(Mine): ...\n"
        "def fail(inner=False):\n    raise (Outer.Inner if inner else Mine)('no money')\n"
    )
    for args, name in (("[]", "own.Mine"), ("[true]", "own.Outer.Inner")):
        result = palpable("run", "own:fail", "--args", args, folder=project)
        assert result.returncode == 1
        assert result.stderr.startswith("Traceback") and "own.py" in result.stderr
        assert result.stderr.splitlines()[-1].endswith(f"failed: {name}: no money")


@pytest.mark.parametrize(("text", "shown"), [("nan", "nan"), ("-inf", "-inf")])
def test_what_json_has_no_number_for_is_its_repr(text: str, shown: str) -> None:
    args = ["builtins:float", "--args", json.dumps([text])]
    assert answer("run", *args) == f"{shown}\n"
    ended = json.loads(answer("run", "--json", *args))
    assert ended["result_repr"] == shown and "result" not in ended
    task_id = ended["task_id"]
    assert f"result      {shown}\n" in answer("show", task_id)
    assert json.loads(answer("show", "--json", task_id))["result_repr"] == shown
    assert {json.loads(line)["result_repr"] for line in answer("export").splitlines()} == {shown}


def test_a_detached_task_goes_on(project: Path, tmp_path: Path, client: Client) -> None:
    arguments = ["--args", json.dumps([str(tmp_path / "go")])]
    task_id = answer("run", "--detach", "of_project:wait_for", *arguments, folder=project).strip()
    wait_until(lambda: client.tasks()[0].state == "running")
    (tmp_path / "go").touch()
    assert client.result(task_id, timeout_seconds=20) is None
    assert json.loads(answer("run", "-d", "--json", "math:sqrt", "--args", "[4]")).keys() == {"task_id"}


def test_the_same_key_is_the_same_task(client: Client) -> None:
    first = json.loads(answer("run", "--json", "--key", "of today", "random:random"))
    second = json.loads(answer("run", "--json", "--key", "of today", "random:random"))
    assert first["task_id"] == second["task_id"] and first["result"] == second["result"]
    assert [task.idempotency_key for task in client.tasks()] == ["of today"]


def test_an_interrupt_leaves_a_task_with_a_key(project: Path, tmp_path: Path, client: Client) -> None:
    arguments = ["--key", "k", "of_project:wait_for", "--args", json.dumps([str(tmp_path / "go")])]
    with started("run", *arguments, folder=project) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "before\n"
        process.send_signal(signal.SIGINT)
        assert "goes on" in process.communicate(timeout=20)[1]
    (tmp_path / "go").touch()
    assert client.result(client.tasks()[0].task_id, timeout_seconds=20) is None


def test_a_command_inside_a_task_frees_the_slot_of_that_task() -> None:
    """With as many as there are workers, each waiting for a task of its own."""
    inner = f"{sys.executable} -m palpable run math:sqrt --args '[4]'"
    with started("run", "--", "sh", "-c", inner) as first, started("run", "--", "sh", "-c", inner) as second:
        for process in (first, second):
            assert process.communicate(timeout=40) == ("2.0\n", "")
            assert process.returncode == 0


# --- commands -----------------------------------------------------------------------------------------------------


def test_a_command_runs_in_the_current_folder_with_its_output_on_stdout(project: Path) -> None:
    script = "pwd; echo to stderr >&2; cat; echo done"
    assert answer("run", "--", "sh", "-c", script, folder=project) == f"{project}\nto stderr\ndone\n"


def test_the_exit_code_of_a_command_is_passed_through() -> None:
    assert "sh ended with exit code 42" in refusal(42, "run", "--", "sh", "-c", "exit 42")
    assert "sh was ended by SIGKILL" in refusal(128 + signal.SIGKILL, "run", "--", "sh", "-c", "kill -9 $$")
    assert "No such file" in refusal(127, "run", "--", "no-such-command")
    assert "Permission denied" in refusal(126, "run", "--", "/dev/null")


def test_a_command_that_fails_is_a_failed_task_with_its_output(client: Client) -> None:
    result = palpable("run", "--json", "--", "sh", "-c", "echo the reason; exit 3")
    ended = json.loads(result.stdout)
    assert (ended["state"], ended["outcome"], ended["exit_code"]) == ("failed", "error", 3)
    assert result.stderr == "the reason\n" == client.logs(ended["task_id"])
    (task,) = client.tasks()
    assert task.name == "sh -c 'echo the reason; exit 3'"


def test_a_command_may_be_given_any_bytes(tmp_path: Path, client: Client) -> None:
    name = os.fsdecode(b"\xff")
    answer("run", "--", "touch", name, folder=tmp_path)
    assert os.listdir(tmp_path).count(name) == 1
    assert "\\udcff" in client.tasks()[0].name


def test_what_is_no_text_names_no_task() -> None:
    assert "no text in UTF-8" in refusal(2, "show", "\udcff")


def test_options_of_a_command_are_its_own() -> None:
    assert answer("run", "--", "echo", "--json", "--", "-d") == "--json -- -d\n"


def test_a_command_ends_with_its_tree(tmp_path: Path, client: Client) -> None:
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; wait"
    with started("run", "--timeout", "1h", "--", "sh", "-c", script) as process:
        wait_until((tmp_path / "pid").exists)
        client.cancel(client.tasks()[0].task_id)
        process.communicate(timeout=20)
    assert process.returncode == 4
    wait_gone([int((tmp_path / "pid").read_text())])


def test_the_function_is_not_imported_by_the_command_itself(project: Path) -> None:
    (project / "loud.py").write_text(
        "import os\n"
        "print('imported in', os.environ.get('PALPABLE_TASK_ID', 'nowhere'))\n"
        "def act():\n    return os.environ['PALPABLE_TASK_ID']\n"
    )
    result = palpable("run", "loud:act", folder=project)
    assert result.stderr == f"imported in {json.loads(result.stdout)}\n"


# --- the options of the function ----------------------------------------------------------------------------------


def test_a_function_runs_with_the_options_it_has(project: Path, tmp_path: Path, client: Client) -> None:
    args = json.dumps([str(tmp_path / "attempts")])
    result = palpable("run", "of_project:patient", "--args", args, folder=project)
    assert result.returncode == 1 and "not yet" in result.stderr
    assert (tmp_path / "attempts").read_text() == "xxx"
    (task,) = client.tasks(tags="own")
    assert (task.name, task.attempt) == ("a patient one", 3)
    look = next(task for task in client.tasks() if task.name == "options of of_project:patient")
    assert look.state == "succeeded"


def test_what_the_command_line_says_wins_over_the_function_also_when_it_is_the_default(
    project: Path, tmp_path: Path, client: Client
) -> None:
    args = json.dumps([str(tmp_path / "attempts")])
    palpable("run", "of_project:patient", "--args", args, "--retries", 0, "--tag", "mine", folder=project)
    assert (tmp_path / "attempts").read_text() == "x"
    (task,) = client.tasks(tags="mine")
    assert task.name == "a patient one"


def test_a_function_without_options_costs_no_further_task(project: Path, client: Client) -> None:
    assert answer("run", "of_project:where", folder=project)
    assert len(client.tasks()) == 1


def test_a_function_whose_module_ends_the_process_fails_as_a_task(project: Path) -> None:
    (project / "ending.py").write_text("import os, palpable\nos._exit(7)\n@palpable.task\ndef f(): ...")
    result = palpable("run", "ending:f", folder=project)
    assert result.returncode == 3
    assert "7" in result.stderr
