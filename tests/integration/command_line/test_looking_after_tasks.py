"""`show`, `wait`, `retry`, `purge`, `export`, `tasks`: what a shell user can learn of tasks, and do with them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from palpable import Client
from support import tasks
from support.command_line import answer, palpable, refusal, started
from support.wait import wait_until


def _json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# --- show ---------------------------------------------------------------------------------------------------------


def test_show_tells_how_a_task_is_to_run_how_it_went_and_what_came_of_it(client: Client) -> None:
    view = client.options(name="a name", tags=("nightly", "x"), priority=3, retries=2, timeout_seconds=90)
    task_id = _kept(view, tasks.print_line, "a word")
    shown = answer("show", task_id)
    fields = dict(line.split(maxsplit=1) for line in shown.partition("\n\n")[0].splitlines())
    assert fields["task"] == task_id and fields["name"] == "a name" and fields["state"] == "succeeded"
    assert fields["tags"] == "nightly, x" and fields["priority"] == "3" and fields["timeout"] == "1 m 30 s"
    assert fields["retries"].startswith("2, waits from") and fields["result"] == '"a word"'
    assert {"submitted", "started", "finished", "elapsed", "CPU", "isolation", "attempt"} <= set(fields)
    assert shown.endswith("\n\nIt printed:\na word\n")


def test_show_tells_of_an_error_with_its_traceback(client: Client) -> None:
    task_id = _kept(client, tasks.half, 3)
    palpable("wait", task_id)
    shown = answer("show", task_id)
    assert "failed (error)" in shown
    assert "OddNumber: 3 is odd" in shown and "Traceback (most recent call last)" in shown
    assert "It printed" not in shown


def test_show_as_json_is_one_object_with_all_there_is(client: Client) -> None:
    task_id = _kept(client, tasks.print_line, "a word")
    shown = json.loads(answer("show", "--json", task_id))
    assert shown["result"] == "a word" and shown["output"] == "a word\n" and shown["retries"] == 0
    odd = json.loads(answer("show", "--json", _kept(client, complex, 1)))
    assert odd["result_repr"] == "(1+0j)" and "result" not in odd


def test_show_tells_that_a_result_was_taken(client: Client) -> None:
    future = client.submit(tasks.double, 2)
    future.result(timeout=20)
    client.get_status()  # behind the acknowledgement
    assert "result      taken by a client" in answer("show", future.task_id)


def test_show_tells_of_a_task_that_runs(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    shown = answer("show", future.task_id)
    assert "state       running" in shown and "worker      Worker-" in shown and "before" in shown
    (tmp_path / "holding.go").touch()
    future.result(timeout=20)


def _kept(client: object, function: object, *args: object) -> str:
    """Run a function in a task to its end, its result staying on the server; return the id."""
    from palpable import RunFunction

    task_id: str = client.run_procedure(RunFunction(function, *args), waiting_seconds=0).task_id  # type: ignore[attr-defined]
    return task_id


# --- wait ---------------------------------------------------------------------------------------------------------


def test_wait_ends_with_the_task_and_with_its_outcome(client: Client, tmp_path: Path) -> None:
    task_id = _kept(client, tasks.hold, str(tmp_path))
    with started("wait", task_id) as process:
        wait_until((tmp_path / "holding").exists)
        assert process.poll() is None
        (tmp_path / "holding.go").touch()
        assert process.communicate(timeout=20) == (f"{task_id}: succeeded\n", "")
        assert process.returncode == 0


def test_the_first_that_has_not_succeeded_decides(client: Client) -> None:
    good, odd, gone = _kept(client, abs, 1), _kept(client, tasks.half, 3), _kept(client, tasks.exit_at_once, 7)
    result = palpable("wait", good, gone, odd)
    assert result.returncode == 3 and not result.stderr
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"{good}: succeeded", f"{gone}: crashed: exited with code 7"]
    assert lines[2].startswith(f"{odd}: failed: ") and lines[2].endswith("OddNumber: 3 is odd")
    result = palpable("wait", "--json", odd)
    assert result.returncode == 1
    assert json.loads(result.stdout)["exit_code"] == 1


def test_the_outcome_of_a_command_is_its_exit_code(client: Client) -> None:
    task_id = answer("run", "--detach", "--", "sh", "-c", "exit 42").strip()
    result = palpable("wait", task_id)
    assert (result.returncode, result.stdout) == (42, f"{task_id}: failed: sh ended with exit code 42\n")
    assert answer("show", task_id).splitlines()[-1] == "error       sh ended with exit code 42"


def test_a_wait_has_an_end(client: Client, tmp_path: Path) -> None:
    task_id = _kept(client, tasks.hold, str(tmp_path))
    result = palpable("wait", "--timeout", "100ms", task_id)
    assert (result.returncode, result.stderr) == (6, "")
    assert "has not ended yet" in result.stdout
    (tmp_path / "holding.go").touch()
    assert palpable("wait", task_id).returncode == 0


# --- retry --------------------------------------------------------------------------------------------------------


def test_what_failed_is_submitted_again_with_its_options(client: Client) -> None:
    odd = _kept(client.options(tags=("odd",)), tasks.half, 3)
    even = _kept(client, tasks.half, 4)
    palpable("wait", odd, even)
    lines = answer("retry", odd, even, "no-such-task").splitlines()
    new_id = lines[0].rpartition(" ")[2]
    assert lines[0] == f"{odd}: submitted again as {new_id}"
    assert lines[1].startswith(f"{even}: succeeded; ") and lines[2].startswith("no-such-task: not known here")
    assert palpable("wait", new_id).returncode == 1
    assert {task.task_id for task in client.tasks(tags="odd")} == {odd, new_id}
    result = palpable("retry", "--json", even)
    assert result.returncode == 1
    assert json.loads(result.stdout) == {"task_id": even, "new_task_id": None, "state": "succeeded"}


# --- purge --------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_removed_by_state_and_age(client: Client) -> None:
    for task_id in (_kept(client, tasks.half, number) for number in (2, 3, 5)):
        palpable("wait", task_id)
    assert answer("purge", "--older-than", "7d") == "Removed 0 tasks.\n"
    assert answer("purge", "--state", "failed") == "Removed 2 tasks.\n"
    assert json.loads(answer("purge", "--all", "--json")) == {"count": 1}
    assert client.tasks() == []


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "--state", "failed"], ["--state", "running"], ["--older-than", "x"]]
)
def test_what_to_remove_must_be_said(arguments: list[str], client: Client) -> None:
    refusal(2, "purge", *arguments)


# --- export -------------------------------------------------------------------------------------------------------


def test_export_writes_every_task_with_its_result_and_removes_nothing(client: Client) -> None:
    odd = _kept(client, tasks.half, 3)
    kept = [_kept(client.options(tags=("t",)), tasks.half, number) for number in range(0, 300, 2)]
    palpable("wait", odd, kept[-1])
    wait_until(lambda: not {"ready", "running"} & {task.state for task in client.tasks()})
    for _ in range(2):
        lines = _json_lines(answer("export"))
        assert [line["task_id"] for line in lines] == [*reversed(kept), odd]
        assert [line["result"] for line in lines[:-1]] == list(range(149, -1, -1))
        assert "result" not in lines[-1] and "OddNumber" in str(lines[-1]["traceback"])
    assert _json_lines(answer("export", "--state", "failed", "--no-results"))[0].get("traceback") is None
    assert len(_json_lines(answer("export", "--json", "--tag", "t"))) == 150
    assert client.result(kept[0], timeout_seconds=0) == 0


def test_export_says_which_results_can_be_no_json_or_not_be_read_here(client: Client, tmp_path: Path) -> None:
    (tmp_path / "of_elsewhere.py").write_text("class Thing:\n    pass\n")
    palpable("run", "-q", "--folder", tmp_path, "of_elsewhere:Thing")
    answer("run", "builtins:complex", "--args", "[1, 2]")
    plain, strange = _json_lines(answer("export"))
    assert plain["result_repr"] == "(1+2j)"
    assert "of_elsewhere" in str(strange["result_error"])
    assert "result_repr" in _json_lines(answer("export", folder=tmp_path))[1]


# --- tasks --------------------------------------------------------------------------------------------------------


def test_tasks_are_found_by_tag_and_shown_with_all_of_their_options(client: Client) -> None:
    client.options(tags=("a", "b"), retries=3, backoff_seconds=0.5).submit(tasks.double, 1).result(timeout=20)
    client.options(tags=("a",)).submit(tasks.double, 1).result(timeout=20)
    assert len(_json_lines(answer("tasks", "--json", "--tag", "a"))) == 2
    (task,) = _json_lines(answer("tasks", "--json", "--tag", "a", "--tag", "b"))
    assert task["tags"] == ["a", "b"] and task["retries"] == 3 and task["backoff_seconds"] == 0.5
    assert "TAGS" in answer("tasks")


def test_a_delayed_and_a_retried_task_are_listed_as_such(client: Client) -> None:
    later = answer("run", "--detach", "--delay", "1h", "math:sqrt", "--args", "[4]").strip()
    options = ["--detach", "--retries", "5", "--name", "a stubborn one"]
    again = answer("run", *options, "--", "false").strip()
    wait_until(lambda: {task.state for task in client.tasks()} >= {"scheduled"})
    (task,) = _json_lines(answer("tasks", "--json", "--state", "scheduled"))
    assert task["task_id"] == later and float(str(task["due_at"])) > time.time() + 3000
    assert answer("cancel", later, again).count("cancelled") == 2


def test_more_tasks_than_a_page_are_listed(client: Client) -> None:
    client.options(isolation="worker").map(tasks.double, range(2500), chunksize=1)
    assert len(answer("tasks", "--json", "--limit", 2400).splitlines()) == 2400


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["show", "wait"])
def test_an_unknown_task_is_said(command: str, client: Client) -> None:
    line = refusal(1, command, "no-such-task")
    assert "no-such-task" in line and "palpable tasks" in line


def test_ctrl_c_ends_a_wait_and_leaves_the_task(client: Client, tmp_path: Path) -> None:
    task_id = _kept(client, tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    with started("wait", task_id) as process:
        wait_until(lambda: client.get_status()["tasks"].get("running") == 1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    (tmp_path / "holding.go").touch()
    assert client.result(task_id, timeout_seconds=20) == "holding"
