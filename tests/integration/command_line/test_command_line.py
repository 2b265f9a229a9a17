"""The command line, as a shell user meets it: a server, what can be asked of it, and what is said when it fails."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from palpable import Client, RunFunction
from palpable._cli.ending import run
from palpable._cli.main import command_line
from palpable.units.task_exceptions import ServerUnreachable, TaskCancelled, TaskKilledByQuitSignal
from support import tasks
from support.command_line import PALPABLE, Serve, answer, first_line, palpable, refusal, started
from support.processes import is_alive, wait_gone
from support.scripts import run_script
from support.wait import wait_until

TLS = Path(__file__).parents[2] / "support" / "tls"


# --- serve --------------------------------------------------------------------------------------------------------


def test_serve_says_in_one_line_where_it_listens(default_server: subprocess.Popen[str], home: Path) -> None:
    assert default_server.says == (
        f"Listening on unix://{home}/server.sock with 2 workers. Client() and the other commands find it.\n"
    )


def test_the_default_server_is_found_by_client(client: Client) -> None:
    assert client.map(tasks.double, [1, 2, 3]) == [2, 4, 6]


def test_the_default_server_is_for_its_user_alone(default_server: subprocess.Popen[str], home: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [home, *home.iterdir()]}
    assert modes == {"home": 0o700, "server.sock": 0o600, "authkey": 0o600}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_with_exit_code_0(
    memory_server: subprocess.Popen[str], home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    client = Client()
    running = client.submit(tasks.block, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    family = [child.pid for child in psutil.Process(memory_server.pid).children(recursive=True)]
    os.killpg(memory_server.pid, number)  # as Ctrl-C in a terminal does
    with pytest.raises(TaskKilledByQuitSignal):
        running.result(timeout=20)
    client.close()
    assert memory_server.communicate(timeout=20) == ("", "")
    assert memory_server.returncode == 0
    wait_gone(family)
    assert os.listdir(home) == ["authkey"]


@pytest.mark.parametrize("delay_seconds", [0.15, 0.3, 0.45, 0.6])
def test_a_signal_while_it_starts_leaves_nothing_behind(delay_seconds: float, home: Path) -> None:
    """The moment differs from run to run; what must hold is the same at each."""
    with started("serve", "--workers", 1) as process:
        time.sleep(delay_seconds)
        process.terminate()
        _, errors = process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
        assert not errors
    assert not (home / "server.sock").exists()


SIGNALLED_IN_AN_IMPORT = """
    import os, signal, sys

    class Signalling:
        def find_spec(self, name, path, target=None):
            if name == "palpable.servants.listener":
                print("signalled", flush=True)
                os.kill(os.getpid(), signal.{number})
                print("goes on", flush=True)

    sys.meta_path.insert(0, Signalling())
    sys.argv[1:] = ["serve"]
    from palpable.__main__ import main
    main()
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_while_the_server_is_imported_is_heard_afterwards(number: str, home: Path, tmp_path: Path) -> None:
    source = SIGNALLED_IN_AN_IMPORT.format(number=number)
    assert run_script(tmp_path, source) == "signalled\ngoes on\n"
    assert not home.exists()


def test_the_key_is_kept_when_the_server_starts_again(serve: Serve, home: Path) -> None:
    first = serve()
    key = (home / "authkey").read_bytes()
    answer("stop")
    assert first.wait(timeout=20) == 0
    serve()
    with Client() as client:
        assert client.run(tasks.double, 2) == 4
    assert (home / "authkey").read_bytes() == key


def test_a_second_server_at_the_same_place_is_refused(client: Client, home: Path) -> None:
    line = refusal(1, "serve")
    assert f"another server listens on {home}/server.sock already" in line
    assert "palpable stop" in line
    assert client.run(tasks.double, 4) == 8


def test_a_socket_that_nobody_listens_on_is_replaced(serve: Serve, home: Path) -> None:
    home.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(home / "server.sock"))
    serve()
    assert "workers     2, 0 busy" in answer("status")


def test_a_server_at_another_socket_is_found_by_the_same_option(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "of mine.sock"
    process = serve("--socket", path)
    assert str(process.pid) in answer("status", "--socket", path)
    words = re.findall(r"PALPABLE_URL=(\S+)$", process.says)  # type: ignore[attr-defined]
    assert str(process.pid) in answer("status", environment={"PALPABLE_URL": words[0]})
    with Client(path) as client:
        assert client.run(tasks.double, 4) == 8
    assert "there is no socket" in refusal(2, "status")


def test_a_server_on_tcp_says_its_port_and_is_found_by_it(serve: Serve, tmp_path: Path) -> None:
    process = serve("--port", 0, "--authkey-file", tmp_path / "key", "--json")
    facts = json.loads(process.says)  # type: ignore[attr-defined]
    assert facts["pid"] == process.pid and facts["authkey_file"] == str(tmp_path / "key") and facts["num_workers"] == 2
    port = facts["url"].rpartition(":")[2]
    for options in (["--port", port], ["--host", "127.0.0.1", "--port", port], ["--url", facts["url"]]):
        assert facts["url"] in answer("status", *options, "--authkey-file", tmp_path / "key")
    environment = {"PALPABLE_URL": facts["url"], "PALPABLE_AUTHKEY_FILE": str(tmp_path / "key")}
    assert facts["url"] in answer("status", environment=environment)
    answer("stop", environment=environment)
    process.wait(timeout=20)
    assert process.returncode == 0


def test_a_port_that_is_taken_is_refused(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refusal(1, "serve", "--port", taken.getsockname()[1])
    assert "another program listens" in line and "--port" in line


def test_a_server_with_tls_is_found_by_those_who_trust_it(serve: Serve) -> None:
    process = serve("--port", 0, "--tls-certificate", TLS / "server.crt", "--tls-key", TLS / "server.key", "--json")
    url = json.loads(process.says)["url"]  # type: ignore[attr-defined]
    assert url.startswith("tls://")
    assert url in answer("status", "--url", url, "--tls", TLS / "server.crt")
    assert "not trusted" in refusal(2, "status", "--url", url, "--tls", TLS / "other.crt")
    answer("stop", "--url", url, "--tls", TLS / "server.crt")


def test_an_address_for_other_machines_needs_tls() -> None:
    line = refusal(2, "serve", "--host", "0.0.0.0", "--port", 0)
    assert "--tls-certificate" in line and "--allow-plaintext" in line


@pytest.mark.parametrize(
    "options",
    [
        ["--port", 0, "--tls-certificate", "nowhere.crt", "--tls-key", "nowhere.key"],
        ["--port", 0, "--tls-certificate", TLS / "server.key", "--tls-key", TLS / "server.key"],
        ["--log-folder", "/proc/nowhere"],
        ["--host", "192.0.2.1", "--port", 4711, "--allow-plaintext"],
        ["--host", "no-such-host.invalid", "--port", 4711, "--allow-plaintext"],
        ["--socket", "/proc/s", "--authkey-file", "/proc/nowhere/key"],
    ],
    ids=["no certificate", "wrong certificate", "log folder", "not our address", "no such host", "key file"],
)
def test_what_a_server_cannot_start_with_is_said_in_one_line(options: list[object]) -> None:
    assert refusal_code(*options) in (1, 2)


def test_a_server_that_is_refused_leaves_nothing_of_its_own(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    serve("--socket", folder / "x", "--authkey-file", tmp_path / "key")
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    refusal(1, "serve", "--socket", folder / "x", "--store", tmp_path / "other.db")
    refusal(1, "serve", "--socket", folder / "file", "--store", "none")
    refusal(2, "serve", "--host", "0.0.0.0", "--port", 0, "--authkey-file", folder / "key", "--store", "none")
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_a_server_whose_store_breaks_says_why_and_advises_nothing_that_would_have_lost_everything(
    serve: Serve, tmp_path: Path
) -> None:
    store = tmp_path / "jobs.db"
    server = serve("--store", store)
    with Client(reconnect_seconds=0) as client:
        store.rename(tmp_path / "elsewhere.db")
        with pytest.raises(ServerUnreachable):
            client.run(abs, -3)
    errors = server.communicate(timeout=20)[1]
    assert server.returncode == 1
    assert f"the store {store} was moved, removed or replaced" in errors
    assert "--store none" not in errors and errors.count("\n") == 1 and errors.endswith(".\n")


def test_a_store_that_can_not_be_opened_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"something else" * 100)
    errors = refusal(1, "serve", "--store", tmp_path / "jobs.db")
    assert "is not an SQLite database" in errors and errors.endswith(". To keep nothing: --store none.\n")


def test_a_store_in_memory_is_asked_for_in_the_words_of_the_command_line() -> None:
    errors = refusal(2, "serve", "--store", ":memory:")
    assert "--store none" in errors and "None" not in errors


def test_a_server_no_process_for_tasks_can_be_started_for_ends_with_a_plain_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zygote forks, so it refuses to have threads."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    result = palpable("serve", "--store", "none")
    assert (result.returncode, result.stdout) == (1, "")
    *reasons, last = result.stderr.splitlines()
    assert last.startswith("palpable: no process for tasks could be started") and last.endswith(".")
    assert {reason.partition(" at every")[0] for reason in reasons} == {
        "palpable: something in this Python environment starts a thread"
    }


def refusal_code(*options: object) -> int:
    result = palpable("serve", *options)
    assert result.stderr.startswith("palpable") and result.stderr.count("\n") == 1, result
    return result.returncode


def test_tasks_can_import_what_is_in_the_folder_of_the_server(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "of_the_project.py").write_text("VALUE = 42\n")
    serve("--preload", "of_the_project", "--preload", "no_such_module", folder=tmp_path / "project")

    def value(_: object) -> tuple[int, bool]:
        is_preloaded = "of_the_project" in sys.modules
        import of_the_project  # type: ignore[import-not-found]

        return of_the_project.VALUE, is_preloaded

    with Client() as client:
        assert client.run(value, None) == (42, True)
    status = answer("status")
    assert re.search(r"^preloaded +of_the_project", status, re.MULTILINE)
    assert re.search(r"^not loaded +no_such_module: ", status, re.MULTILINE)


def test_the_settings_of_a_server_are_those_of_its_options(serve: Serve, tmp_path: Path) -> None:
    serve("--isolation", "worker", "--task-timeout-seconds", 2, "--log-folder", tmp_path / "logs")
    with Client() as client:
        pids = {client.run(tasks.own_pid, None) for _ in range(3)}
        assert len(pids) <= 2
        future = client.submit(tasks.block, str(tmp_path))
        assert type(future.exception(timeout=20)).__name__ == "TaskTimeout"
    assert "isolation worker" in answer("status")
    assert (tmp_path / "logs" / "server.log").exists()


# --- status and tasks ---------------------------------------------------------------------------------------------


def test_status_shows_what_each_worker_does(
    client: Client, default_server: subprocess.Popen[str], tmp_path: Path
) -> None:
    client.run(tasks.double, 1)
    running = client.submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    status = answer("status")
    assert f"pid {default_server.pid}" in status
    assert "tasks       1 running, 1 succeeded" in status
    assert re.search(rf"^Worker-\d +{running.task_id} +hold +\d+.*%.*MB$", status, re.MULTILINE)
    assert re.search(r"^Worker-\d +- +-", status, re.MULTILINE)
    (tmp_path / "holding.go").touch()
    running.result(timeout=20)


def test_status_as_json_is_one_object(client: Client, default_server: subprocess.Popen[str]) -> None:
    client.run(tasks.double, 1)
    status = json.loads(answer("status", "--json"))
    assert status["pid"] == default_server.pid
    assert [worker["name"] for worker in status["worker_status"]] == ["Worker-1", "Worker-2"]
    assert status["tasks"] == {"succeeded": 1}
    assert status["url"].startswith("unix:///")


def test_tasks_are_listed_newest_first(client: Client) -> None:
    good = client.submit(tasks.double, 1)
    good.result(timeout=20)
    bad = client.submit(tasks.exit_at_once, 3)
    bad.exception(timeout=20)
    heading, *lines = answer("tasks").splitlines()
    assert heading.split() == ["ID", "NAME", "STATE", "OUTCOME", "ATTEMPT", "ELAPSED", "CPU", "MEMORY", "WORKER"]
    assert [line.split()[:5] for line in lines] == [
        [bad.task_id, "exit_at_once", "failed", "crashed", "1"],
        [good.task_id, "double", "succeeded", "succeeded", "1"],
    ]
    assert all(re.search(r"\d ms +\d+ ms +[\d.]+ MB", line) for line in lines)


def test_tasks_as_json_are_an_object_a_line_with_all_there_is(client: Client) -> None:
    bad = client.run_procedure(RunFunction(int, "no number"), waiting_seconds=0)
    with pytest.raises(ValueError):
        client.result(bad.task_id, timeout_seconds=20)
    client.run(tasks.double, 1)
    objects = [json.loads(line) for line in answer("tasks", "--json").splitlines()]
    assert [task["state"] for task in objects] == ["succeeded", "failed"]
    assert objects[1]["task_id"] == bad.task_id
    assert objects[1]["error_type"] == "ValueError" and "no number" in objects[1]["error_message"]
    assert objects[0].keys() == objects[1].keys()


def test_tasks_are_chosen_by_state_and_number(client: Client, tmp_path: Path) -> None:
    for number in range(3):
        client.run(tasks.double, number)
    running = [client.submit(tasks.hold, str(tmp_path), f"holding-{number}") for number in range(2)]
    ready = client.submit(tasks.double, 1)
    wait_until(lambda: all((tmp_path / f"holding-{number}").exists() for number in range(2)))

    def listed(*options: object) -> list[str]:
        return [json.loads(line)["task_id"] for line in answer("tasks", "--json", *options).splitlines()]

    assert listed("--state", "running") == [running[1].task_id, running[0].task_id]
    assert listed("--state", "ready", "--state", "running", "--limit", 2) == [ready.task_id, running[1].task_id]
    result = palpable("tasks", "--limit", 3)
    assert len(result.stdout.splitlines()) == 4
    assert "There are more" in result.stderr
    for number in range(2):
        (tmp_path / f"holding-{number}.go").touch()
    ready.result(timeout=20)


def test_no_tasks_are_no_error(client: Client) -> None:
    result = palpable("tasks")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "There are no tasks.\n")
    assert answer("tasks", "--json") == ""


# --- logs ---------------------------------------------------------------------------------------------------------


def test_logs_shows_what_a_task_printed(client: Client) -> None:
    future = client.submit(tasks.speak_from_everywhere)
    future.result(timeout=20)
    assert answer("logs", future.task_id).splitlines()[:2] == ["from print", "from stderr"]
    assert answer("logs", "-f", future.task_id) == answer("logs", future.task_id)
    (piece,) = map(json.loads, answer("logs", "--json", future.task_id).splitlines())
    assert piece == {"task_id": future.task_id, "text": answer("logs", future.task_id)}


def test_logs_follows_live_and_ends_with_the_task(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    with started("logs", "-f", future.task_id) as process:
        assert first_line(process) == "before\n"
        assert answer("logs", future.task_id) == "before\n"
        assert process.poll() is None
        (tmp_path / "holding.go").touch()
        assert process.communicate(timeout=20) == ("after\n", "")
        assert process.returncode == 0
    future.result(timeout=20)


def test_ctrl_c_ends_following_and_leaves_the_task(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    with started("logs", "-f", future.task_id) as process:
        first_line(process)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=20)
        assert (process.returncode, output, errors.strip()) == (130, "", "")
    (tmp_path / "holding.go").touch()
    assert future.result(timeout=20) == "done"


def test_following_ends_with_one_line_when_the_server_goes(
    memory_server: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client()
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    with started("logs", "-f", future.task_id) as process:
        first_line(process)
        answer("stop")
        _, errors = process.communicate(timeout=20)
        assert process.returncode in (0, 2)  # it may see the task end, or only the connection
        assert errors.count("\n") == (process.returncode == 2)
    assert isinstance(future.exception(timeout=20), TaskKilledByQuitSignal)
    client.close()


@pytest.mark.parametrize("options", [[], ["-f"]])
def test_the_log_of_an_unknown_task_is_an_error(client: Client, options: list[str]) -> None:
    line = refusal(1, "logs", *options, "no-such-task")
    assert "no-such-task" in line and "palpable tasks" in line


def test_a_reader_that_has_gone_ends_the_command_quietly(client: Client) -> None:
    future = client.submit(tasks.print_line, "for nobody")
    future.result(timeout=20)
    for arguments in (["logs", future.task_id], ["tasks"], ["status", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            command = [*PALPABLE, *arguments]
            result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=20)
        finally:
            os.close(writing)
        assert (result.returncode, result.stderr) == (1, "")


# --- cancel -------------------------------------------------------------------------------------------------------


def test_cancel_says_of_each_task_what_happened(client: Client, tmp_path: Path) -> None:
    finished = client.submit(tasks.double, 1)
    finished.result(timeout=20)
    running = client.submit(tasks.block, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    lines = answer("cancel", finished.task_id, running.task_id, "no-such-task").splitlines()
    assert lines[0] == f"{finished.task_id}: had ended before, succeeded"
    assert lines[1] == f"{running.task_id}: cancelled"
    assert lines[2].startswith("no-such-task: not known here")
    with pytest.raises(TaskCancelled):
        running.result(timeout=20)


def test_cancel_fails_if_nothing_was_cancelled(client: Client) -> None:
    result = palpable("cancel", "--json", "no-such-task")
    assert (result.returncode, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {"task_id": "no-such-task", "is_cancelled": False, "state": None}


def test_a_task_that_waits_in_the_queue_can_be_cancelled(client: Client, tmp_path: Path) -> None:
    futures = [client.submit(tasks.block, str(tmp_path), f"blocked-{number}") for number in range(2)]
    futures.append(client.submit(tasks.double, 1))
    output = answer("cancel", "--json", *(future.task_id for future in futures))
    assert [json.loads(line)["is_cancelled"] for line in output.splitlines()] == [True] * 3
    for future in futures:
        with pytest.raises(TaskCancelled):
            future.result(timeout=20)


# --- stop ---------------------------------------------------------------------------------------------------------


def test_stop_returns_when_the_server_is_gone(
    default_server: subprocess.Popen[str], client: Client, home: Path, tmp_path: Path
) -> None:
    client.submit(tasks.start_tree, "a stubborn child", str(tmp_path), "block")
    wait_until((tmp_path / "task").exists)
    family = [default_server.pid, *(child.pid for child in psutil.Process(default_server.pid).children(recursive=True))]
    assert answer("stop") == f"The server at unix://{home}/server.sock has stopped.\n"
    assert not [pid for pid in family if is_alive(pid)]
    assert default_server.wait(timeout=20) == 0
    assert os.listdir(home) == ["authkey"]


def test_a_new_server_can_follow_at_once(serve: Serve) -> None:
    for _ in range(3):
        process = serve()
        assert json.loads(answer("stop", "--json"))["pid"] == process.pid


def test_stop_says_so_if_the_server_takes_longer(client: Client, tmp_path: Path) -> None:
    client.submit(tasks.start_tree, "a child", str(tmp_path), "block", ignores_sigterm=True)
    wait_until((tmp_path / "task").exists)
    line = refusal(1, "stop", "--timeout-seconds", 0.2)
    assert "has not ended within 0.2 s" in line and "--timeout-seconds" in line


def test_a_server_that_takes_over_while_the_last_one_ends_keeps_its_socket(
    memory_server: subprocess.Popen[str], serve: Serve, tmp_path: Path
) -> None:
    with Client() as client:
        client.submit(tasks.start_tree, "a child", str(tmp_path), "block", ignores_sigterm=True)
        wait_until((tmp_path / "task").exists)
        memory_server.terminate()
        successor = wait_until(lambda: _try_to_serve(serve))
    assert memory_server.poll() is None
    assert memory_server.wait(timeout=20) == 0
    assert f"pid {successor.pid}" in answer("status")


def _try_to_serve(serve: Serve) -> subprocess.Popen[str] | None:
    try:
        return serve("--store", "none")
    except AssertionError:  # the last one has not even heard of its end
        return None


# --- what goes wrong ----------------------------------------------------------------------------------------------

QUESTIONS = [
    *(["status"], ["tasks"], ["logs", "x"], ["logs", "-f", "x"], ["cancel", "x"], ["stop"], ["drain"], ["wait", "x"]),
    *(["show", "x"], ["retry", "x"], ["purge", "--all"], ["export"], ["map", "math:sqrt"], ["run", "math:sqrt"]),
    *(["run", "--", "true"], ["top", "--once"], ["top"]),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_without_a_server_every_question_ends_with_2_and_says_what_to_do(
    question: list[str], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command_line, question) == 2  # in this process: it takes a tenth of the time
    output, errors = capfd.readouterr()
    assert not output and errors.count("\n") == 1
    assert "palpable serve" in errors and str(home) in errors


def test_what_is_no_function_is_told_as_the_command_can_use_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command_line, ["run", "ls"]) == 2
    assert "palpable run -- ls" in capfd.readouterr().err
    assert run(command_line, ["map", "ls"]) == 2
    errors = capfd.readouterr().err
    assert "module:function" in errors and "--" not in errors.replace("--help", "")


def test_a_choice_that_is_missing_is_told_in_one_plain_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command_line, ["completion"]) == 2
    assert "Choose from: bash, zsh, fish." in capfd.readouterr().err


def test_a_socket_file_that_nobody_listens_on_is_no_server(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        home.mkdir(mode=0o700)
        old.bind(str(home / "server.sock"))
    (home / "authkey").write_text("x\n")
    (home / "authkey").chmod(0o600)
    assert "nobody listens" in refusal(2, "status")
    (home / "server.sock").unlink()


def test_the_wrong_key_ends_with_2(default_server: subprocess.Popen[str], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another key\n")
    (tmp_path / "other").chmod(0o600)
    assert "authkey" in refusal(2, "status", "--authkey-file", tmp_path / "other")
    (tmp_path / "other").chmod(0o644)
    assert "chmod 600" in refusal(2, "status", "--authkey-file", tmp_path / "other")
    assert "no-such-file" in refusal(2, "status", "--authkey-file", tmp_path / "no-such-file")


def test_a_mistake_in_the_options_ends_with_2_and_leads_to_the_help() -> None:
    assert "`python -m palpable tasks --help`" in refusal(2, "tasks", "--state", "sleeping")


def test_an_output_that_cannot_be_written_is_said_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([*PALPABLE, "version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "No space left" in result.stderr


# --- the shell ----------------------------------------------------------------------------------------------------


def completed(words: str, last: str) -> list[str]:
    """What the shell is offered for the last word."""
    count = len(words.split())
    environment = {"_PALPABLE_COMPLETE": "bash_complete", "COMP_WORDS": f"{words} {last}", "COMP_CWORD": str(count)}
    result = palpable(environment=environment)
    assert not result.stderr
    return [line.partition(",")[2] for line in result.stdout.split()]


def test_the_shell_completes_commands_options_and_states() -> None:
    assert completed("palpable", "sto") == ["stop"]
    assert completed("palpable tasks", "--st") == ["--state"]
    assert completed("palpable tasks --state", "r") == ["ready", "running", "retrying"]


def test_the_shell_completes_the_ids_of_tasks(client: Client, tmp_path: Path) -> None:
    finished = client.submit(tasks.double, 1)
    finished.result(timeout=20)
    running = client.submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    assert completed("palpable logs", "") == [running.task_id, finished.task_id]
    assert completed("palpable cancel", running.task_id[:10]) == [running.task_id]
    (tmp_path / "holding.go").touch()
    running.result(timeout=20)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    script = answer("completion", shell)
    assert f"_PALPABLE_COMPLETE={shell}_complete" in script


def test_bash_takes_the_script_and_completes() -> None:
    line = f'eval "$({shlex.join(PALPABLE)} completion bash)"; complete -p palpable'
    result = subprocess.run(["bash", "--norc", "-c", line], capture_output=True, text=True, timeout=20)
    assert result.returncode == 0 and result.stdout.startswith("complete ") and result.stdout.endswith("palpable\n")


def test_the_shell_does_not_wait_for_a_server_that_does_not_answer(default_server: subprocess.Popen[str]) -> None:
    default_server.send_signal(signal.SIGSTOP)
    try:
        assert completed("palpable logs", "") == []
    finally:
        default_server.send_signal(signal.SIGCONT)


def test_without_a_server_the_shell_completes_nothing_and_says_nothing() -> None:
    assert completed("palpable logs", "") == []


def test_the_version_is_told_with_that_of_python() -> None:
    assert answer("version") == f"palpable {answer('--version').split()[1]}, Python {sys.version.split()[0]}\n"
    assert json.loads(answer("version", "--json")).keys() == {"palpable", "python"}


def test_help_loads_neither_a_command_nor_the_client_nor_the_server() -> None:
    source = (
        "import sys; sys.argv = ['palpable', '--help']\n"
        "from palpable._cli.ending import run; from palpable._cli.main import command_line\n"
        "run(command_line)\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('palpable.', 'msgspec', 'asyncio', 'rich'))))"
    )
    output = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=20).stdout
    loaded = output.splitlines()[-1].split()
    own = {"_cli", "_cli.ending", "_cli.lazy_group", "_cli.main", "_cli.standard_streams"}
    expected = {*own, "units", "units.task_exceptions"}
    assert set(loaded) == {f"palpable.{name}" for name in expected}


def test_help_comes_at_once() -> None:
    def children_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def cpu_seconds() -> float:
        before = children_seconds()
        answer("--help")
        return children_seconds() - before

    # It waits for nothing: where nothing else runs, this is the time it takes. The best of many, since whoever else
    # runs also empties the processor's caches.
    assert any(cpu_seconds() < 0.15 for _ in range(30))


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_command_does_without_the_streams_it_was_not_given(
    redirections: str, default_server: subprocess.Popen[str]
) -> None:
    shell = f"{shlex.join(PALPABLE)} status {redirections} && {shlex.join(PALPABLE)} map math:sqrt {redirections}"
    result = subprocess.run(["sh", "-c", shell], input="4\n", capture_output=True, text=True, timeout=40)
    assert result.returncode == 0 and not result.stderr
