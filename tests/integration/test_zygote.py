"""The zygote and its task processes, without a server: birth, one task, the end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from palpable._wire.payload import loads
from palpable._zygote.os_calls import PR_SET_CHILD_SUBREAPER, become_subreaper
from palpable.units.messenger import current_task
from support.processes import is_alive, wait_gone
from support.wait import wait_until
from support.zygotes import TOKEN, FakeServer, serve


def _error(ended: Any) -> BaseException:
    assert ended is not None and not ended.is_successful
    error = loads(ended.payload)
    assert isinstance(error, BaseException)
    return error


# --- one task ---------------------------------------------------------------------------------------------------


def test_what_a_task_says_is_in_its_output_too_in_order(tmp_path: Path) -> None:
    def speak() -> str:
        messenger = current_task()
        print("first")
        messenger.info("second")
        print("third ", end="")
        messenger.print("fourth", 4)
        sys.stdout = None  # type: ignore[assignment]
        messenger.error("fifth")
        return messenger.name

    async def test(server: FakeServer) -> None:
        process = await server.take()
        said = [await process.run(speak)] + [await process.receive() for _ in range(3)]
        assert [(message.level, message.text) for message in said[:3]] == [
            ("INFO", "second"),
            ("PRINT", "fourth 4\n"),
            ("ERROR", "fifth"),
        ]
        assert said[3].is_successful and loads(said[3].payload) == "speak"
        await server.exit_of(process)
        assert process.output() == "first\nINFO: second\nthird fourth 4\nERROR: fifth\n"

    serve(tmp_path, test)


def test_a_task_runs_and_its_process_exits(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        process = await server.take()
        ended = await process.run(lambda number: (os.getpid(), number + 1), 41)
        exit = await server.exit_of(process)
        assert ended is not None and ended.is_successful and ended.task_id == "t1"
        assert loads(ended.payload) == (process.pid, 42)
        assert exit.exit_status == 0 and exit.cpu_seconds > 0 and exit.peak_memory_bytes > 1 << 20
        assert exit.strays_killed == 0

    serve(tmp_path, test)


def test_a_task_knows_which_one_it_is_and_so_do_its_subprocesses(tmp_path: Path) -> None:
    def look() -> list[str]:
        names = ["PALPABLE_TASK_ID", "PALPABLE_ATTEMPT", "PALPABLE_TASK_TOKEN"]
        program = f"import os; print([os.environ.get(name) for name in {names}])"
        own = [os.environ[name] for name in names]
        seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        return [*own, seen.strip()]

    async def test(server: FakeServer) -> None:
        own = ["t1", "1", TOKEN]
        assert await server.value(look) == [*own, str(own)]

    serve(tmp_path, test)


def test_an_authkey_in_the_environment_of_the_server_is_not_in_that_of_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALPABLE_AUTHKEY", "secret")
    monkeypatch.setenv("PALPABLE_AUTHKEY_FILE", "/secret")

    async def test(server: FakeServer) -> None:
        assert await server.value(lambda: [name for name in os.environ if "AUTHKEY" in name]) == []

    serve(tmp_path, test)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt("no"), MemoryError("no"), GeneratorExit("no")])
def test_an_exception_of_any_kind_is_a_failure(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def test(server: FakeServer) -> None:
        ended, exit, _ = await server.run(fail)
        assert type(_error(ended)) is type(error) and str(_error(ended)) == "no"
        assert exit.exit_status == 0

    serve(tmp_path, test)


def test_endless_recursion_is_a_failure(tmp_path: Path) -> None:
    def descend(depth: int) -> int:
        return descend(depth + 1)

    async def test(server: FakeServer) -> None:
        assert isinstance(_error((await server.run(descend, 0))[0]), RecursionError)

    serve(tmp_path, test)


def test_a_result_that_cannot_be_pickled_is_a_failure(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        assert type(_error((await server.run(lambda: sys._getframe()))[0])).__name__ == "NotPicklable"

    serve(tmp_path, test)


def test_a_large_argument_and_a_large_result_arrive_whole(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        data = bytes(range(256)) * 40_000
        assert await server.value(lambda data: data[::-1], data) == data[::-1]

    serve(tmp_path, test)


@pytest.mark.parametrize(
    ("end", "exit_status"),
    [
        (lambda: os._exit(3), 3),
        (lambda: sys.exit(4), 4),
        (lambda: sys.exit(), 0),
        (lambda: sys.exit("a reason"), 1),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
        (lambda: ctypes.string_at(0), -signal.SIGSEGV),
        (lambda: os.closerange(0, 1024), 1),
    ],
)
def test_an_end_of_another_kind_is_told_by_the_exit_status(tmp_path: Path, end: Any, exit_status: int) -> None:
    async def test(server: FakeServer) -> None:
        ended, exit, _ = await server.run(end)
        assert ended is None
        assert exit.exit_status == exit_status
        assert await server.value(lambda: 5) == 5

    serve(tmp_path, test)


def test_a_forked_child_that_returns_from_the_task_gives_no_second_answer(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        process = await server.take()
        ended = await process.run(os.fork)
        assert ended is not None and loads(ended.payload) > 0
        assert await process.receive() is None

    serve(tmp_path, test)


def test_a_task_starts_with_default_signals_and_no_file_descriptor_but_its_own(tmp_path: Path) -> None:
    def look() -> tuple[list[int], set[int], str, bool, bool]:
        fds = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        handler = signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGTERM)
        is_default = handler == (signal.SIG_DFL, signal.SIG_DFL) and signal.set_wakeup_fd(-1) == -1
        leads = os.getsid(0) == os.getpgrp() == os.getpid()
        return fds, set(signal.pthread_sigmask(signal.SIG_BLOCK, [])), os.readlink("/proc/self/fd/0"), is_default, leads

    async def test(server: FakeServer) -> None:
        fds, mask, stdin, is_default, leads = await server.value(look)
        assert [fd for fd in fds if fd not in (0, 1, 2, 63)] == [3]  # of the listing itself
        assert mask == set() and stdin == "/dev/null" and is_default and leads

    serve(tmp_path, test)


def test_no_two_processes_draw_the_same_random_numbers(tmp_path: Path) -> None:
    def draw() -> float:
        import random

        return random.random()

    async def test(server: FakeServer) -> None:
        assert len({await server.value(draw) for _ in range(5)}) == 5

    serve(tmp_path, test, preload=["random"])


# --- what tasks may use -----------------------------------------------------------------------------------------


def _use_multiprocessing(method: str) -> list[int]:
    import multiprocessing

    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def _use_everything() -> list[Any]:
    import asyncio
    import concurrent.futures
    import logging
    import threading

    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(threading.current_thread().native_id != os.getpid()))
    thread.start()
    thread.join()
    logging.getLogger("x").warning("logged")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        seen.append(list(pool.map(abs, [-1, -2])))

    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec("echo", "hello", stdout=subprocess.PIPE)
        return (await process.communicate())[0]

    seen.append(asyncio.run(main()))
    seen.append(threading.main_thread().native_id == os.getpid())
    read_fd, write_fd = os.pipe()
    if not (pid := os.fork()):
        threading.Thread(target=lambda: os.write(write_fd, b"%d" % threading.active_count())).start()
        is_own = threading.main_thread().native_id == os.getpid()
        threading._shutdown()  # type: ignore[attr-defined]
        os._exit(0 if is_own else 1)
    seen.append(os.waitpid(pid, 0)[1])
    seen.append(os.read(read_fd, 9))
    return seen


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_task_may_use_a_pool_of_multiprocessing(tmp_path: Path, method: str) -> None:
    async def test(server: FakeServer) -> None:
        assert await server.value(_use_multiprocessing, method) == [1, 2, 3]

    serve(tmp_path, test)


def test_a_task_may_use_threads_logging_executors_asyncio_and_fork(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        assert await server.value(_use_everything) == [True, [1, 2], b"hello\n", True, 0, b"2"]

    serve(tmp_path, test)


# --- output -----------------------------------------------------------------------------------------------------


def test_all_that_is_printed_lands_in_the_spool_file(tmp_path: Path) -> None:
    def speak() -> None:
        libc = ctypes.CDLL(None)
        print("from Python \udcff ä")
        print("an error", file=sys.stderr)
        libc.printf(b"from C\n")
        subprocess.run(["echo", "from a subprocess"], check=True)
        libc.printf(b"no newline, ")
        print("no newline either", end="")

    async def test(server: FakeServer) -> None:
        _, _, process = await server.run(speak)
        assert process.output() == (
            "from Python \\udcff ä\nan error\nfrom C\nfrom a subprocess\nno newline, no newline either"
        )

    serve(tmp_path, test)


def test_a_line_can_be_read_while_the_task_runs(tmp_path: Path) -> None:
    def speak() -> None:
        print("first")
        time.sleep(60)

    async def test(server: FakeServer) -> None:
        process = await server.take()
        running = asyncio.ensure_future(process.run(speak))
        await asyncio.to_thread(wait_until, lambda: process.output() == "first\n")
        server.handle.end_process(process.pid)
        assert await running is None

    serve(tmp_path, test)


def test_writing_never_fails(tmp_path: Path) -> None:
    def speak() -> str:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1)
        print("x" * 100_000)
        os.close(1)
        print("y" * 100_000)
        return "fine"

    async def test(server: FakeServer) -> None:
        assert await server.value(speak) == "fine"

    serve(tmp_path, test)


# --- preloading -------------------------------------------------------------------------------------------------


def test_modules_are_preloaded_or_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "zy_good.py").write_text("import os\nPID = os.getpid()\n")
    (folder / "zy_threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    (folder / "zy_broken.py").write_text("raise SystemExit('no')\n")
    monkeypatch.syspath_prepend(str(folder))

    def look() -> tuple[bool, bool]:
        return os.getppid() == sys.modules["zy_good"].PID, "zy_threaded" in sys.modules

    async def test(server: FakeServer) -> None:
        assert server.ready is not None
        assert server.ready.preloaded == ["zy_good"]
        assert server.ready.refused == {
            "zy_threaded": "it starts a thread when it is imported",
            "zy_broken": "SystemExit: no",
            "zy_missing": "ModuleNotFoundError: No module named 'zy_missing'",
        }
        assert list(server.ready.source_files) == [str(folder / "zy_good.py")]
        assert await server.value(look) == (True, False)
        assert not server.handle.is_stale()
        (folder / "zy_good.py").write_text("PID = 0\n")
        assert server.handle.is_stale()

    serve(tmp_path / "spools", test, preload=["zy_good", "zy_threaded", "zy_broken", "zy_missing"])


def test_hooks_of_preloaded_libraries_are_run_around_the_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zy_hooks.py").write_text(
        textwrap.dedent("""
            import os
            seen = []
            def note(word): return lambda: seen.append(word)
            os.register_at_fork(before=note("before 1"), after_in_child=note("child 1"), after_in_parent=note("parent"))
            os.register_at_fork(before=note("before 2"), after_in_child=note("child 2"))
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    async def test(server: FakeServer) -> None:
        seen = await server.value(lambda: sys.modules["zy_hooks"].seen)
        assert seen == ["before 2", "before 1", "child 1", "child 2"]

    serve(tmp_path / "spools", test, preload=["zy_hooks"])


def test_a_hook_that_raises_does_not_keep_processes_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zy_bad_hook.py").write_text("import os; os.register_at_fork(after_in_child=lambda: 1 / 0)")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def test(server: FakeServer) -> None:
        process = await server.take()
        ended = await process.run(pow, 2, 10)
        assert ended is not None and loads(ended.payload) == 1024
        assert "ZeroDivisionError" in process.output()

    serve(tmp_path / "spools", test, preload=["zy_bad_hook"])


def test_files_that_preloaded_modules_opened_are_open_in_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"file{number}" for number in range(5)]
    for name in names:
        (tmp_path / name).write_text(name)
    (tmp_path / "zy_files.py").write_text(f"files = [open({str(tmp_path)!r} + '/' + name) for name in {names}]")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def test(server: FakeServer) -> None:
        assert await server.value(lambda: [file.read() for file in sys.modules["zy_files"].files]) == names

    serve(tmp_path / "spools", test, preload=["zy_files"])


def test_a_process_whose_socket_there_is_no_file_descriptor_for_is_replaced(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            server.handle.keep_alive(3)
            async with asyncio.timeout(20):
                while len(server.handle._alive) < 3:
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not server.forked
        await server.until(lambda: len(server.forked) == 3)
        numbers = [await server.value(lambda number: number + 1, number) for number in range(5)]
        assert numbers == [1, 2, 3, 4, 5]

    serve(tmp_path, test, processes=0)


def test_a_task_reports_dear_imports_of_installed_modules_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zy_own.py").write_text("import time\ntime.sleep(0.005)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def import_some() -> None:
        import unittest.mock

        import zy_own

        assert unittest.mock and zy_own

    async def test(server: FakeServer) -> None:
        ended, _, _ = await server.run(import_some)
        assert ended is not None and ended.is_successful
        assert ended.imported["unittest"] > 0.001 and "zy_own" not in ended.imported
        assert (await server.run(lambda: 1))[0].imported == {}  # type: ignore[union-attr]

    serve(tmp_path / "spools", test)


# --- many ---------------------------------------------------------------------------------------------------------


def test_five_hundred_processes_leave_nothing_in_the_zygote(tmp_path: Path) -> None:
    def fds(server: FakeServer) -> list[str]:
        return sorted(os.listdir(f"/proc/{server.handle.pid}/fd"))

    async def test(server: FakeServer) -> None:
        await server.until(lambda: len(server.forked) == 4)
        before = fds(server)
        for _ in range(500):
            (await server.take()).socket.close()  # an idle process that is not needed exits
        await server.until(lambda: len(server.exits) >= 500)
        await server.until(lambda: len(server.forked) - len(server.exits) == 4)
        await asyncio.to_thread(wait_until, lambda: len(fds(server)) <= len(before))
        assert {exit.exit_status for exit in server.exits.values()} == {0}
        assert len(os.listdir(tmp_path)) <= 5

    serve(tmp_path, test, processes=4)


# --- the end of the zygote --------------------------------------------------------------------------------------


def test_when_the_server_is_gone_the_zygote_takes_everything_with_it(tmp_path: Path) -> None:
    def start_daemon() -> int:
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        print(child.pid, flush=True)
        time.sleep(60)
        return 0

    async def test(server: FakeServer) -> None:
        process = await server.take()
        running = asyncio.ensure_future(process.run(start_daemon))
        await asyncio.to_thread(wait_until, lambda: process.output().endswith("\n"))
        daemon = int(process.output())
        server.handle.close()
        await server.handle.wait_died()
        assert server.deaths == 1
        assert await running is None
        await asyncio.to_thread(wait_gone, [process.pid, daemon])

    serve(tmp_path, test)


def test_when_the_zygote_is_killed_everything_below_it_is_gone_and_the_server_is_told(tmp_path: Path) -> None:
    def start_daemons() -> None:
        daemon = [sys.executable, "-c", "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(60)"]
        subprocess.Popen(daemon, start_new_session=True)
        time.sleep(60)

    async def test(server: FakeServer) -> None:
        own_child = subprocess.Popen(["sleep", "60"])  # of the program that the server runs in; not the server's
        process = await server.take()
        running = asyncio.ensure_future(process.run(start_daemons))
        await asyncio.to_thread(wait_until, lambda: process.output().count("\n") == 2)
        server.handle.kill()
        await server.until(lambda: server.deaths)
        assert not [pid for pid in (process.pid, *map(int, process.output().split())) if is_alive(pid)]
        assert await running is None
        assert own_child.poll() is None
        own_child.kill()
        own_child.wait()
        server.handle.keep_alive(3)  # does nothing any more
        server.handle.close()

    become_subreaper()
    try:
        serve(tmp_path, test)
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)
