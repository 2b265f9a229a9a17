"""What one task does to its process is never seen by another."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import threading
from pathlib import Path

import pytest

from palpable import Client, Server
from support import tasks
from support.processes import is_alive, server_process, task_processes, zygote_processes
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


def test_every_task_has_a_process_of_its_own(lone_client: Client) -> None:
    pids = lone_client.map(tasks.own_pid, range(20))
    assert len(set(pids)) == 20


@pytest.mark.own_server
def test_a_task_process_is_neither_the_server_nor_a_zygote(client: Client) -> None:
    keepers = {server_process().pid, *(zygote.pid for zygote in zygote_processes())}
    assert not keepers & set(client.map(tasks.own_pid, range(10)))


def test_a_global_set_by_one_task_is_not_seen_by_the_next(lone_client: Client) -> None:
    assert lone_client.map(tasks.add_to_counter, range(10)) == [1] * 10


def test_environment_folder_and_umask_changed_by_one_task_are_not_seen_by_the_next(lone_client: Client) -> None:
    def look(_: object = None) -> tuple[str | None, str, int]:
        umask = os.umask(0o22)
        os.umask(umask)
        return os.environ.get("SET_BY_A_TASK"), os.getcwd(), umask

    def spoil(_: object = None) -> None:
        os.environ["SET_BY_A_TASK"] = "yes"
        os.chdir("/")
        os.umask(0o77)

    before = lone_client.run(look, None)
    lone_client.run(spoil, None)
    assert lone_client.run(look, None) == before
    assert before[1] == os.getcwd()


def test_a_file_left_open_by_one_task_is_not_seen_by_the_next(lone_client: Client) -> None:
    def leave_open(path: str) -> list[int]:
        return [os.open(path, os.O_RDONLY) for _ in range(5)]

    before = sorted(lone_client.run(tasks.open_descriptors, None))
    lone_client.run(leave_open, __file__)
    assert sorted(lone_client.run(tasks.open_descriptors, None)) == before


def test_a_task_holds_its_output_its_private_socket_and_nothing_else(client: Client) -> None:
    client.map(tasks.double, range(8))
    descriptors = client.run(tasks.open_descriptors, None)
    sockets = [target for target in descriptors.values() if target.startswith("socket:")]
    listing = [target for target in descriptors.values() if target.startswith("/proc/")]
    assert descriptors[0] == "/dev/null"
    assert descriptors[1] == descriptors[2]
    assert len(sockets) == 1
    assert len(descriptors) - len(listing) == 4, descriptors


def test_a_signal_handler_set_by_one_task_is_not_seen_by_the_next(lone_client: Client) -> None:
    def ignore(_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})

    lone_client.run(ignore, None)
    assert lone_client.run(tasks.signal_state, None) == _fresh_signal_state()


def test_a_task_begins_with_the_signal_handlers_of_a_new_python(client: Client) -> None:
    assert client.run(tasks.signal_state, None) == _fresh_signal_state()


def _fresh_signal_state() -> list[tuple[str, str, bool]]:
    """Python ignores SIGPIPE and turns SIGINT into KeyboardInterrupt; the rest is the kernel's default."""
    kinds = {"SIGINT": "python", "SIGPIPE": "SIG_IGN"}
    return [(number.name, kinds.get(number.name, "SIG_DFL"), False) for number in tasks.SIGNALS]


def test_memory_taken_by_one_task_is_free_again_in_the_next(lone_client: Client) -> None:
    assert lone_client.run(tasks.keep_ballast, 300_000_000) > 300_000_000
    assert lone_client.run(tasks.resident_bytes, None) < 100_000_000


def test_a_module_imported_by_one_task_is_not_loaded_in_the_next(lone_client: Client, tmp_path: Path) -> None:
    (tmp_path / "seen_once.py").write_text("VALUE = 1\n")

    def load(folder: str) -> int:
        sys.path.insert(0, folder)
        return int(__import__("seen_once").VALUE)

    def look(_: object) -> bool:
        return "seen_once" in sys.modules

    assert lone_client.run(load, str(tmp_path)) == 1
    assert lone_client.map(look, range(3)) == [False] * 3


def test_every_task_runs_the_module_of_its_function_itself_as_the_file_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "module_of_a_task.py"
    program = "import os\nPID = os.getpid()\ndef look(_):\n    return {}, PID == os.getpid()\n"
    source.write_text(program.format(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    look = importlib.import_module("module_of_a_task").look
    try:
        with Server(num_workers=1) as server, server.client() as client:
            # Enough that the last ones ran in processes forked after the zygotes made the module ready.
            assert client.map(look, range(10)) == [(1, True)] * 10
            source.write_text(program.format(1234))
            assert client.map(look, range(10)) == [(1234, True)] * 10
    finally:
        del sys.modules["module_of_a_task"]


def test_two_tasks_do_not_draw_the_same_random_numbers(client: Client) -> None:
    def draw(_: object) -> float:
        return random.random()

    drawn = client.map(draw, range(50))
    assert len(set(drawn)) == 50


def test_a_seed_set_by_one_task_is_not_seen_by_the_next(lone_client: Client) -> None:
    def seed_and_draw(_: object) -> float:
        random.seed(1)
        return random.random()

    def draw(_: object) -> float:
        return random.random()

    fixed = lone_client.map(seed_and_draw, range(3))
    assert len(set(fixed)) == 1
    random.seed(1)
    random.random()
    assert random.random() not in lone_client.map(draw, range(3))


def test_a_task_leads_a_session_and_group_of_its_own(client: Client) -> None:
    def ids(_: object) -> tuple[int, int, int]:
        return os.getpid(), os.getsid(0), os.getpgrp()

    pid, session, group = client.run(ids, None)
    assert pid == session == group


def test_a_task_reads_nothing_from_the_terminal(client: Client) -> None:
    assert client.run(lambda _: sys.stdin.read(), None) == ""


def test_a_task_runs_on_the_main_thread_and_alone(client: Client) -> None:
    def look(_: object) -> tuple[bool, int, int]:
        is_main = threading.current_thread() is threading.main_thread()
        return is_main, threading.active_count(), len(os.listdir("/proc/self/task"))

    assert client.run(look, None) == (True, 1, 1)


def test_threads_left_behind_by_a_task_end_with_it(lone_client: Client) -> None:
    assert lone_client.run(tasks.sleep_in_threads, 10) == 11
    assert lone_client.run(tasks.sleep_in_threads, 0) == 1


def test_the_process_of_a_task_is_gone_once_its_exit_status_is_known(client: Client) -> None:
    from palpable import RunFunction

    result = client.run_procedure(RunFunction(tasks.own_pid), waiting_seconds=-1)
    assert result.is_successful is True
    assert not is_alive(result.data)


@pytest.mark.own_server
def test_idle_task_processes_wait_ahead_of_the_tasks(client: Client) -> None:
    # All of them: the zygotes start side by side, and a task may go to any process that is there by then.
    wait_until(lambda: client.get_status()["processes"]["idle"] == 4)
    idle = {process.pid for process in task_processes()}
    assert client.run(tasks.own_pid, None) in idle


def test_in_isolation_worker_one_process_runs_many_tasks(lone_client: Client) -> None:
    pids = lone_client.options(isolation="worker").map(tasks.own_pid, range(50))
    assert len(set(pids)) == 1


def test_in_isolation_worker_the_next_task_sees_what_the_one_before_left(lone_client: Client) -> None:
    warm = lone_client.options(isolation="worker")
    assert [warm.run(tasks.add_to_counter, None) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_task_of_isolation_task_never_runs_in_a_process_kept_for_isolation_worker(lone_client: Client) -> None:
    warm = lone_client.options(isolation="worker")
    for _ in range(3):
        warm.run(tasks.add_to_counter, None)
        assert lone_client.run(tasks.add_to_counter, None) == 1
