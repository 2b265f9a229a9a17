"""A server starts, stops, joins and closes, in any order and any number of times, and ends with its owner."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path

import psutil
import pytest

from palpable import Client, Server
from palpable.units.task_exceptions import ServerStartError, ServerUnreachable, TaskKilledByQuitSignal
from support import tasks
from support.processes import is_alive, server_process, wait_gone
from support.scripts import run_script, started_script
from support.wait import wait_until


def test_num_workers_alone_is_enough() -> None:
    with Server(num_workers=2) as server, server.client() as client:
        assert client.map(tasks.double, [1, 2, 3]) == [2, 4, 6]


def test_a_server_of_its_own_has_a_private_socket_and_folder_that_go_with_it() -> None:
    with Server(num_workers=1) as server:
        socket_path, folder = Path(server.address), Path(server._logging_folder)
        assert server.family == "AF_UNIX"
        assert stat.S_ISSOCK(socket_path.stat().st_mode)
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) & 0o077 == 0
        assert folder.is_dir()
        assert len(server.authkey) >= 16
    assert not socket_path.exists()
    assert not folder.exists()


def test_a_folder_given_by_the_user_stays(tmp_path: Path) -> None:
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=1):
        pass
    assert (tmp_path / "logs").is_dir()


def test_without_a_number_there_is_a_worker_for_every_usable_core() -> None:
    with Server() as server:
        assert len(server.status["worker_status"]) == len(os.sched_getaffinity(0))


def test_the_number_of_workers_respects_the_affinity_of_the_process(tmp_path: Path) -> None:
    source = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from palpable import Server
        with Server() as server:
            print(len(server.status["worker_status"]))
    """
    assert run_script(tmp_path, source) == "1\n"


def test_start_returns_the_server_once_it_listens() -> None:
    server = Server(num_workers=1)
    assert not server.is_listening
    assert server.start() is server
    assert server.is_listening
    server.stop()
    server.join()
    assert not server.is_listening
    server.close()


def test_a_server_that_is_not_started_has_no_client_and_says_so() -> None:
    server = Server(num_workers=1)
    assert repr(server) == "<Server not running>"
    with pytest.raises(RuntimeError, match="not started"):
        server.client()


def test_each_step_may_be_taken_twice() -> None:
    server = Server(num_workers=1)
    server.start()
    server.start()
    for step in (server.stop, server.join, server.close):
        step()
        step()
    assert not server.is_listening


def test_a_server_that_was_closed_can_be_started_again() -> None:
    server = Server(num_workers=1)
    for _ in range(2):
        with server, server.client() as client:
            assert client.run(tasks.double, 2) == 4


def test_what_was_never_started_can_be_stopped_joined_and_closed() -> None:
    server = Server(num_workers=1)
    server.stop()
    server.join()
    server.close()
    assert not server.is_listening


def test_close_alone_stops_and_joins() -> None:
    server = Server(num_workers=1).start()
    pid = server_process().pid
    server.close()
    assert not is_alive(pid)


def test_join_waits_for_every_process(tmp_path: Path) -> None:
    server = Server(num_workers=2).start()
    with server.client() as client:
        client.submit(tasks.block, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
        process = server_process()
        family = [process, *process.children(recursive=True)]
        assert len(family) >= 3
        server.stop()
        server.join()
    assert not [member for member in family if is_alive(member.pid)]
    server.close()


def test_a_block_that_raises_closes_the_server_too() -> None:
    with pytest.raises(KeyError, match="mine"), Server(num_workers=1):
        pid = server_process().pid
        raise KeyError("mine")
    assert not is_alive(pid)


def test_two_servers_of_one_process_are_strangers_to_each_other() -> None:
    with Server(num_workers=1) as one, Server(num_workers=1) as two, one.client() as first, two.client() as second:
        assert one.address != two.address
        assert one.authkey != two.authkey
        assert first.run(tasks.double, 1) == second.run(tasks.double, 1) == 2


def test_many_servers_start_and_stop_in_a_row() -> None:
    for _ in range(5):
        with Server(num_workers=1) as server, server.client() as client:
            assert client.run(tasks.double, 1) == 2


def test_stopping_fails_running_and_queued_tasks_with_task_killed_by_quit_signal(tmp_path: Path) -> None:
    with Server(num_workers=1) as server, server.client() as client:
        running = client.submit(tasks.block, str(tmp_path))
        queued = client.submit(tasks.double, 1)
        wait_until((tmp_path / "blocked").exists)
        server.stop()
        for future in (running, queued):
            with pytest.raises(TaskKilledByQuitSignal):
                future.result(timeout=20)


def test_a_caller_that_waits_is_told_when_the_server_stops(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    with Server(num_workers=1) as server, server.client() as client:

        def call() -> None:
            try:
                client.run(tasks.block, str(tmp_path))
            except BaseException as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        wait_until((tmp_path / "blocked").exists)
        server.stop()
        caller.join(timeout=20)
    assert [type(error) for error in errors] == [TaskKilledByQuitSignal]


def test_a_client_can_stop_the_server() -> None:
    with Server(num_workers=1) as server, server.client() as client:
        assert client.run(tasks.double, 1) == 2
        client.quit()
        server.join()
        assert not server.is_listening
        with pytest.raises(ServerUnreachable):
            client.run(tasks.double, 1)


def test_a_server_process_that_is_killed_is_noticed_by_its_clients_and_its_owner(tmp_path: Path) -> None:
    with Server(num_workers=1) as server, server.client() as client:
        future = client.submit(tasks.block, str(tmp_path))
        wait_until((tmp_path / "blocked").exists)
        process = server_process()
        family = [process.pid, *(child.pid for child in process.children(recursive=True))]
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ServerUnreachable):
            future.result(timeout=20)
        wait_until(lambda: not server.is_listening)
        wait_gone(family)


OWNER = """
    import time
    from palpable import Server
    from support import tasks

    server = Server(logging_folder="logs", num_workers=2).start()
    client = server.client()
    client.submit(tasks.start_tree, "a double fork", "tree", "block")
    tasks.wait_for_file("tree/task")
    print(server.address, flush=True)
    time.sleep(1000)
"""


def test_everything_ends_with_an_owner_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(tasks.__file__).parents[1]))
    (tmp_path / "tree").mkdir()
    with started_script(tmp_path, OWNER) as owner:
        assert owner.stdout is not None
        address = owner.stdout.readline().strip()
        assert address
        family = [child.pid for child in psutil.Process(owner.pid).children(recursive=True)]
        family += [int(path.read_text()) for path in (tmp_path / "tree").iterdir()]
        assert len(family) >= 4
        owner.send_signal(signal.SIGKILL)
        wait_gone(family)
    wait_until(lambda: not os.path.exists(address))


def test_everything_ends_with_an_owner_that_forgets_to_close(tmp_path: Path) -> None:
    source = """
        from palpable import Server
        server = Server(num_workers=1).start()
        client = server.client()
        print(client.run(abs, -1))
        print(server.address)
    """
    # Python itself would warn of what was not closed, and rightly so.
    answer, address = run_script(tmp_path, source, warnings="ignore").split()
    assert answer == "1"
    wait_until(lambda: not os.path.exists(address))


INTERRUPTED = """
    import signal
    from pathlib import Path
    from palpable import Server
    from support import tasks

    with Server(num_workers=1) as server, server.client() as client:
        future = client.submit(tasks.hold, ".")
        tasks.wait_for_file("holding")
        try:
            print("ready", flush=True)
            client.run(tasks.double, 1)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        Path("holding.go").touch()
        print(future.result(timeout=20), client.run(tasks.double, 4), flush=True)
"""


def test_ctrl_c_reaches_the_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(tasks.__file__).parents[1]))
    with started_script(tmp_path, INTERRUPTED) as owner:
        assert owner.stdout is not None and owner.stderr is not None
        assert owner.stdout.readline() == "ready\n"
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.stdout.read() == "interrupted\nholding 8\n", owner.stderr.read()
        assert owner.wait(timeout=20) == 0


SERVING = """
    from palpable import Server
    Server("logs", "serving.sock", "AF_UNIX", b"key", 1).serve()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_runs_in_the_foreground_until_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(tasks.__file__).parents[1]))
    with started_script(tmp_path, SERVING) as process:
        wait_until((tmp_path / "serving.sock").exists)
        with Client(str(tmp_path / "serving.sock"), "AF_UNIX", b"key") as client:
            assert client.run(tasks.double, 4) == 8
            family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
            process.send_signal(number)
            assert process.wait(timeout=20) in (0, -number, 128 + number)
        wait_gone(family)
        assert not (tmp_path / "serving.sock").exists()


def test_serve_ends_when_a_client_says_quit(tmp_path: Path) -> None:
    with started_script(tmp_path, SERVING) as process:
        wait_until((tmp_path / "serving.sock").exists)
        with Client(str(tmp_path / "serving.sock"), "AF_UNIX", b"key") as client:
            client.quit()
        assert process.wait(timeout=20) == 0


def test_an_idle_server_uses_no_cpu(client: Client) -> None:
    """Nothing polls: between two looks, the scheduler has given no process of the server any time worth a name."""
    client.map(tasks.double, range(4))
    process = server_process()
    family = [process, *process.children(recursive=True)]

    def used() -> float:
        return sum(sum(member.cpu_times()[:2]) for member in family if is_alive(member.pid))

    settled = threading.Event()
    settled.wait(1.0)  # a length of time is what is measured here
    before = used()
    settled.wait(2.0)
    assert used() - before <= 0.02


def test_a_server_that_is_killed_before_it_read_what_to_serve_is_reported_as_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its end then reads as a reset of the connection, not as its end.
    dies = "import os, socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1, socket.MSG_PEEK); os._exit(9)"
    monkeypatch.setattr("palpable.servants.server._BOOT", dies)
    server = Server(num_workers=1)
    with pytest.raises(ServerStartError, match="ended at its start"):
        server.start()
    server.close()


def test_a_server_that_stops_leaves_the_socket_of_another_alone_that_took_its_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(address=path, num_workers=1) as first:
        path.unlink()  # as something that clears temporary folders does
        with Server(address=path, num_workers=1) as second:
            first.close()
            with second.client() as client:
                assert client.run(tasks.double, 1) == 2


def test_an_environment_that_no_process_can_be_forked_in_is_told_of_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = Server(num_workers=1)
    try:
        with pytest.raises(ServerStartError, match="something in this Python environment starts a thread"):
            server.start()
    finally:
        server.close()
