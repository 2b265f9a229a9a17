"""Stopping with time: what runs may end, the rest is handed back, a second word hurries."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from palpable import RunFunction, Server, ServerDraining, TaskKilledByQuitSignal, current_task
from support import tasks
from support.wait import wait_until


def _hold(client: object, folder: Path, name: str = "held") -> str:
    task_id = client.run_procedure(RunFunction(tasks.hold, str(folder), name), 0.001).task_id  # type: ignore[attr-defined]
    wait_until((folder / name).exists)
    return str(task_id)


def _is_draining(client: object) -> bool:
    return bool(client.get_status()["is_draining"])  # type: ignore[attr-defined]


def test_a_draining_server_lets_what_runs_end_and_hands_the_rest_back(tmp_path: Path) -> None:
    server = Server(num_workers=1, store=tmp_path / "jobs.db", drain_seconds=60)
    with server, server.client() as client:
        running = _hold(client, tmp_path)
        queued = client.run_procedure(RunFunction(tasks.double, 2), 0.001).task_id
        server.stop()
        wait_until(lambda: _is_draining(client))
        (tmp_path / "held.go").touch()
        server.join()
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        assert server.recovered == {"ready": 1, "finished": 1}
        assert (client.result(running, 30), client.result(queued, 30)) == ("held", 4)


def test_what_is_submitted_while_it_drains_is_for_the_next_server(tmp_path: Path) -> None:
    def start() -> Server:
        place = {"address": tmp_path / "socket", "authkey": b"the same", "store": tmp_path / "jobs.db"}
        return Server(num_workers=1, drain_seconds=60, **place).start()  # type: ignore[arg-type]

    server = start()
    with server.client() as client:
        _hold(client, tmp_path)
        server.stop()
        wait_until(lambda: _is_draining(client))
        future = client.submit(tasks.double, 21)
        assert client.get_status()["task_queue_size"] == 0 and not future.done()
        early = client.submit(tasks.double, 1)
        cancelling = threading.Thread(target=early.cancel)
        cancelling.start()
        (tmp_path / "held.go").touch()
        server.join()
        server.close()
        with start():
            assert future.result(30) == 42
            cancelling.join(30)
            assert early.cancelled() or early.result(30) == 2, "what was told of the cancel is not contradicted"


def test_what_does_not_end_in_time_is_handed_back_and_burns_no_retry(tmp_path: Path) -> None:
    with Server(num_workers=1, store=tmp_path / "jobs.db", drain_seconds=0.1) as server, server.client() as client:
        running = _hold(client, tmp_path)
    (tmp_path / "held.go").touch()
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        assert server.recovered == {"ready": 1}
        assert client.result(running, 30) == "held"
        (info,) = client.tasks()
        assert info.attempt == 2 and info.retries == 0


def test_a_second_sigterm_hurries(tmp_path: Path) -> None:
    with Server(num_workers=1, store=tmp_path / "jobs.db", drain_seconds=600) as server, server.client() as client:
        _hold(client, tmp_path)
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: _is_draining(client))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: server.pid is None, timeout_seconds=20)


def test_a_client_may_hurry_a_server_that_drains(tmp_path: Path) -> None:
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        _hold(client, tmp_path)
        client.quit(drain_seconds=600)
        wait_until(lambda: _is_draining(client))
        client.quit()
        wait_until(lambda: server.pid is None, timeout_seconds=20)


def test_without_a_store_what_does_not_run_ends_as_it_always_did(tmp_path: Path) -> None:
    with Server(num_workers=1, drain_seconds=60) as server, server.client() as client:
        running = client.submit(tasks.hold, str(tmp_path), "held")
        wait_until((tmp_path / "held").exists)
        queued = client.submit(tasks.double, 2)
        wait_until(lambda: client.get_status()["task_queue_size"] == 1)
        server.stop()
        wait_until(lambda: _is_draining(client))
        (tmp_path / "held.go").touch()
        assert running.result(30) == "held"
        with pytest.raises(TaskKilledByQuitSignal):
            queued.result(30)


def test_sub_tasks_of_what_runs_are_still_started(tmp_path: Path) -> None:
    def parent(folder: str) -> int:
        tasks.hold(folder, "parent")
        return sum(current_task().map(tasks.double, [1, 2, 3]))

    with Server(num_workers=1, store=tmp_path / "jobs.db", drain_seconds=60) as server, server.client() as client:
        future = client.submit(parent, str(tmp_path))
        wait_until((tmp_path / "parent").exists)
        server.stop()
        wait_until(lambda: _is_draining(client))
        (tmp_path / "parent.go").touch()
        assert future.result(30) == 12


def test_what_was_accepted_before_is_not_refused_when_it_is_submitted_again(tmp_path: Path) -> None:
    with Server(num_workers=1) as server, server.client() as client, server.client() as other:
        first = client.options(idempotency_key="one").submit(tasks.hold, str(tmp_path), "held")
        wait_until((tmp_path / "held").exists)
        client.drain()
        again = other.options(idempotency_key="one").submit(tasks.hold, str(tmp_path), "held")
        (tmp_path / "held.go").touch()
        assert again.result(30) == first.result(30) == "held"
        with pytest.raises(ServerDraining):
            other.options(idempotency_key="another").run(tasks.double, 1)


def test_draining_can_be_taken_back(tmp_path: Path) -> None:
    with Server(num_workers=1) as server, server.client() as client:
        client.drain()
        with pytest.raises(ServerDraining):
            client.run(tasks.double, 1)
        client.drain(False)
        assert client.run(tasks.double, 1) == 2


def test_while_it_drains_nothing_is_tried_again_either(tmp_path: Path) -> None:
    with Server(num_workers=1) as server, server.client() as client:
        failed = client.submit(tasks.fail_with, "once")
        assert failed.exception(20)
        client.drain()
        with pytest.raises(ServerDraining):
            client.retry([failed.task_id])


def test_a_server_with_nothing_to_do_does_not_wait(tmp_path: Path) -> None:
    started = time.monotonic()
    with Server(num_workers=1, store=tmp_path / "jobs.db", drain_seconds=600):
        pass
    assert time.monotonic() - started < 60


def test_a_server_told_to_stop_again_and_again_until_it_is_gone_has_ended_by_itself(tmp_path: Path) -> None:
    for _ in range(3):
        server = Server(num_workers=1, store=tmp_path / "jobs.db").start()
        process = server._process
        assert process is not None
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        server.close()
        assert process.returncode == 0


def test_no_sigterm_can_come_to_another_thread_of_a_server(tmp_path: Path) -> None:
    # One that is about to end would take it without a handler, once the event loop is closed.
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        assert client.run(tasks.double, 2) == 4
        process = server._process
        assert process is not None
        others = [path for path in Path(f"/proc/{process.pid}/task").iterdir() if path.name != str(process.pid)]
        assert others  # the journal's
        for thread in others:
            fields = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
            assert int(fields["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1
