"""A server that is killed and started again on the same store goes on where it was."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from palpable import Client, RunFunction, Server, ServerStartError, TaskCancelled, TaskLost, current_task
from palpable._store.sqlite_store import SqliteStore
from support import tasks
from support.processes import is_alive, wait_gone
from support.scripts import run_script
from support.wait import wait_until


def _server(folder: Path, **settings: object) -> Server:
    return Server(num_workers=2, store=folder / "jobs.db", **settings)  # type: ignore[arg-type]


def _kill(server: Server) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.close()


def _submit(client: Client, function: object, *arguments: object) -> str:
    """Submit a task whose result is kept until somebody asks, and return its id once it is accepted."""
    return client.run_procedure(RunFunction(function, *arguments), waiting_seconds=0.001).task_id  # type: ignore[arg-type]


def test_what_was_queued_runs_after_the_server_was_killed(tmp_path: Path) -> None:
    with _server(tmp_path) as server, server.client() as client:
        running = [_submit(client, tasks.hold, str(tmp_path), f"held{n}") for n in range(2)]
        queued = [_submit(client, tasks.double, n) for n in range(50)]
        wait_until(lambda: client.get_status()["tasks"].get("running") == 2)
        _kill(server)
    for n in range(2):
        (tmp_path / f"held{n}.go").touch()
    with _server(tmp_path) as server, server.client() as client:
        assert [client.result(task_id, 30) for task_id in queued] == [2 * n for n in range(50)]
        assert [client.result(task_id, 30) for task_id in running] == ["held0", "held1"]
        # What was about to start is taken for interrupted, too.
        assert server.recovered["interrupted"] >= 2 and sum(server.recovered.values()) == 52


def test_an_interrupted_attempt_counts_and_burns_no_retry(tmp_path: Path) -> None:
    with _server(tmp_path) as server, server.client() as client:
        task_id = _submit(client, tasks.hold, str(tmp_path), "held")
        wait_until((tmp_path / "held").exists)
        _kill(server)
    (tmp_path / "held.go").touch()
    with _server(tmp_path) as server, server.client() as client:
        assert client.result(task_id, 30) == "held"
        (info,) = client.tasks()
        assert (info.state, info.attempt) == ("succeeded", 2)


def test_finished_results_outlive_the_server_with_value_error_facts_and_output(tmp_path: Path) -> None:
    with _server(tmp_path) as server, server.client() as client:
        value = client.run_procedure(RunFunction(tasks.print_line, "said this"), -1)
        kept = [_submit(client, tasks.print_line, "kept"), _submit(client, tasks.fail_with, "no luck")]
        wait_until(lambda: client.get_status()["tasks"].get("running", 0) == 0)
        exits = [_submit(client, tasks.exit_at_once, 3)]
        wait_until(lambda: [t.exit_status for t in client.tasks() if t.task_id == exits[0]] == [3])
        _kill(server)
    assert value.is_successful
    with _server(tmp_path) as server, server.client() as client:
        assert client.query_result(value.task_id) is None, "a result that was taken is gone"
        assert client.logs(kept[0]) == "kept\n"
        result = client.query_result(kept[0])
        assert result is not None and result.is_successful and result.data == "kept" and result.exit_status == 0
        assert client.query_result(kept[0]) is None
        failure = client.query_result(kept[1])
        assert failure is not None and isinstance(failure.data, RuntimeError)
        assert "fail_with" in str(failure.data.__cause__), "the remote traceback is kept too"
        crash = client.query_result(exits[0])
        assert crash is not None and crash.exit_status == 3


def test_what_was_taken_or_forgotten_does_not_come_back(tmp_path: Path) -> None:
    with _server(tmp_path) as server, server.client() as client:
        task_id = _submit(client, tasks.double, 2)
        assert client.result(task_id, 30) == 4
        taken = client.query_result(task_id)
        assert taken is not None and taken.data == 4
        wait_until(lambda: client.query_result(task_id) is None)
        client.get_status()
        server.stop()
        server.join()
    with _server(tmp_path) as server, server.client() as client:
        assert client.query_result(task_id) is None


def test_a_task_that_may_run_once_is_lost_and_not_run_again(tmp_path: Path) -> None:
    with _server(tmp_path) as server, server.client() as client:
        once = client.options(at_most_once=True)
        task_id = once.run_procedure(RunFunction(tasks.hold, str(tmp_path), "held"), 0.001).task_id
        wait_until((tmp_path / "held").exists)
        _kill(server)
    (tmp_path / "held").unlink()
    with _server(tmp_path) as server, server.client() as client:
        with pytest.raises(TaskLost):
            client.result(task_id, 30)
        assert server.recovered == {"lost": 1}
        assert not (tmp_path / "held").exists()


def test_order_and_priority_are_kept(tmp_path: Path) -> None:
    def note(name: str) -> None:
        with open(tmp_path / "order", "a") as file:
            file.write(f"{name}\n")

    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        _submit(client, tasks.hold, str(tmp_path), "held")
        for name in ("low1", "low2"):
            client.options(priority=-1).run_procedure(RunFunction(note, name), 0.001)
        for name in ("usual1", "usual2"):
            _submit(client, note, name)
        last = client.options(priority=-2).run_procedure(RunFunction(note, "last"), 0.001).task_id
        client.options(priority=7).run_procedure(RunFunction(note, "high"), 0.001)
        wait_until((tmp_path / "held").exists)
        _kill(server)
    (tmp_path / "held.go").touch()
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        client.result(last, 30)
    assert (tmp_path / "order").read_text().split() == ["high", "usual1", "usual2", "low1", "low2", "last"]


@pytest.mark.parametrize("kind", sorted(tasks.TREES))
def test_what_the_tasks_of_a_killed_server_started_is_gone_before_they_run_again(tmp_path: Path, kind: str) -> None:
    with _server(tmp_path) as server, server.client() as client:
        folder = tmp_path / "tree"
        folder.mkdir()
        task_id = _submit(client, tasks.start_tree, kind, str(folder), "block")
        wait_until((folder / "task").exists)
        pids = [int(path.read_text()) for path in folder.iterdir()]
        _kill(server)
        with _server(tmp_path) as again, again.client() as client:
            assert [pid for pid in pids if is_alive(pid)] == []
            assert client.cancel(task_id)
    wait_gone(pids)


def test_sub_tasks_of_an_interrupted_attempt_are_cancelled_and_follow_ups_live_on(tmp_path: Path) -> None:
    def parent() -> int:
        from palpable import Task

        messenger = current_task()
        if messenger.attempt == 1:
            messenger.submit_tasks([Task(RunFunction(tasks.hold, str(tmp_path), "followup"))], need_followup=True)
            messenger.run_procedure(RunFunction(tasks.hold, str(tmp_path), "child"))
        return messenger.attempt

    with _server(tmp_path) as server, server.client() as client:
        task_id = _submit(client, parent)
        wait_until((tmp_path / "child").exists)
        wait_until((tmp_path / "followup").exists)
        children = {task.task_id: task.followup_task_ids for task in client.tasks()}
        (followup,) = children[task_id]
        (child,) = children.keys() - {task_id, followup}
        _kill(server)
    (tmp_path / "followup.go").touch()
    with _server(tmp_path) as server, server.client() as client:
        assert client.result(task_id, 30) == 2
        assert client.result(followup, 30) == "followup"
        with pytest.raises(TaskCancelled):
            client.result(child, 30)


def test_tasks_that_end_while_the_store_is_read_are_counted_once(tmp_path: Path) -> None:
    with _server(tmp_path, isolation="worker") as server, server.client() as client:
        for n in range(2):
            _submit(client, tasks.hold, str(tmp_path), f"held{n}")
        wait_until(lambda: client.get_status()["tasks"].get("running") == 2)
        queued = [client.submit(tasks.double, n) for n in range(3000)]
        wait_until(lambda: client.get_status()["task_queue_size"] == len(queued))
        assert client.tasks(limit=1), "what a list shows is on disk"
        _kill(server)
    for n in range(2):
        (tmp_path / f"held{n}.go").touch()
    with _server(tmp_path, isolation="worker") as server, server.client() as client:
        assert sum(server.recovered.values()) == 3002
        wait_until(lambda: client.get_status()["tasks"] == {"succeeded": 3002}, timeout_seconds=30)
        assert len(client.tasks(limit=5000)) == 3002


def test_a_log_that_is_followed_over_a_restart_goes_on_with_what_the_next_attempt_prints(tmp_path: Path) -> None:
    def speak(folder: str) -> None:
        attempt = current_task().attempt
        print(f"attempt {attempt} speaks", flush=True)
        if attempt == 1:
            tasks.block(folder)

    def server() -> Server:
        return _server(tmp_path, address=str(tmp_path / "server.sock"), authkey=b"key")

    with server() as first, first.client() as client:
        log = client.logs(_submit(client, speak, str(tmp_path)), follow=True)
        assert next(log) == "attempt 1 speaks\n"
        _kill(first)
        with server():
            assert "".join(log) == "attempt 2 speaks\n"


def test_a_second_server_on_the_same_store_is_refused(tmp_path: Path) -> None:
    with _server(tmp_path) as server, pytest.raises(ServerStartError, match=rf"jobs\.db.*{server.pid}"):
        _server(tmp_path).start()


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jobs.db").write_bytes(content)
    with pytest.raises(ServerStartError, match=r"jobs\.db"):
        _server(tmp_path).start()
    assert (tmp_path / "jobs.db").read_bytes() == content


def test_a_store_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="nowhere"):
        _server(tmp_path / "nowhere").start()


def test_a_server_that_cannot_end_what_is_left_says_so_and_gives_its_store_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_leftovers(server_id: str) -> int:
        raise TimeoutError("these processes do not end: [7]")

    monkeypatch.setattr("palpable.servants.server_loop.end_leftovers", end_leftovers)
    monkeypatch.setitem(sys.modules, "uvloop", None)  # it keeps a pipe open for the rest of the process
    server = _server(tmp_path)
    with pytest.raises(TimeoutError, match="do not end"):
        server.serve()
    server.close()
    SqliteStore(tmp_path / "jobs.db").close()


def test_a_server_that_cannot_read_its_store_leaves_no_socket_behind(tmp_path: Path) -> None:
    source = """
        import os
        from palpable import Server
        from palpable._store.sqlite_store import SqliteStore
        from palpable._store.store import StoreBroken

        def last_sequence(self):
            raise StoreBroken("damaged")

        SqliteStore.last_sequence = last_sequence
        server = Server("logs", os.path.abspath("server.sock"), authkey=b"key", store="jobs.db")
        try:
            server.serve()
        except StoreBroken as error:
            print(error, os.path.exists("server.sock"))
        server.close()
    """
    assert run_script(tmp_path, source) == "damaged False\n"


def test_a_delayed_task_keeps_its_time_over_a_restart(tmp_path: Path) -> None:
    with _server(tmp_path) as server, server.client() as client:
        late = client.options(delay_seconds=3600).run_procedure(RunFunction(tasks.double, 1), 0.001).task_id
        soon = client.options(delay_seconds=0.5).run_procedure(RunFunction(tasks.double, 2), 0.001).task_id
        due_at = {task.task_id: task.due_at for task in client.tasks()}
        _kill(server)
    with _server(tmp_path) as server, server.client() as client:
        assert client.result(soon, 30) == 4
        (info,) = [task for task in client.tasks("scheduled")]
        assert info.task_id == late and info.due_at == pytest.approx(due_at[late], abs=0.5)
