"""A task may wait for tasks of its own, to any depth, with a single worker."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palpable import AsyncClient, Client, Executor, MapFunction, RunFunction, Server, Task, current_task
from palpable.units.task_exceptions import PalpableError, TaskCrashed, TaskTimeout
from support import tasks
from support.processes import wait_gone
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


@contextmanager
def _watch_running(server: Server) -> Iterator[list[int]]:
    """Collect how many tasks were running or waiting at once, as often as the server can be asked."""
    counts = [0]
    is_over = threading.Event()

    def watch() -> None:
        with server.client() as observer:
            while not is_over.is_set():
                counts.append(len(observer.tasks(state="running")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield counts
    finally:
        is_over.set()
        watcher.join()


@pytest.fixture(params=["task", "worker"])
def each_isolation(request: pytest.FixtureRequest, lone_client: Client) -> Client:
    """A client of each isolation in turn, with one worker."""
    return lone_client.options(isolation=request.param)


def test_sub_tasks_go_thirty_levels_deep_with_one_worker(each_isolation: Client) -> None:
    assert each_isolation.run(tasks.descend, 30) == 31


def test_a_task_fans_out_with_one_worker(each_isolation: Client) -> None:
    assert each_isolation.run(tasks.fan_out, 50) == [number * 2 for number in range(50)]


def test_several_parents_fan_out_at_once(client: Client) -> None:
    assert client.map(tasks.fan_out, [10] * 8) == [[number * 2 for number in range(10)]] * 8


def test_fibonacci_by_sub_tasks_is_right_and_its_processes_stay_few(lone_server: Server, lone_client: Client) -> None:
    with _watch_running(lone_server) as counts:
        assert lone_client.run(tasks.fib, 10) == 55
    assert 1 < max(counts) <= 10 + 2


def test_processes_stay_within_depth_times_workers(server: Server, client: Client) -> None:
    with _watch_running(server) as counts:
        assert client.map(tasks.fib, [6] * 6) == [8] * 6
    assert 1 < max(counts) <= (6 + 1) * 2


def test_a_sub_task_may_run_in_the_other_isolation(lone_client: Client) -> None:
    def parent(isolation: str) -> list[int]:
        return current_task().map(tasks.fib, [3, 4])

    assert lone_client.options(isolation="worker").run(parent, "task") == [2, 3]
    assert lone_client.options(isolation="task").run(parent, "worker") == [2, 3]


def test_an_ordinary_client_inside_a_task_works_with_one_worker(lone_server: Server, lone_client: Client) -> None:
    def parent(count: int, address: Any, family: str, authkey: bytes) -> list[int]:
        with Client(address, family, authkey) as client:
            return client.map(tasks.double, range(count))

    future = lone_client.submit(parent, 5, *_door(lone_server))
    assert future.result(timeout=30) == [0, 2, 4, 6, 8]


def test_ordinary_clients_inside_tasks_go_five_levels_deep(lone_server: Server, lone_client: Client) -> None:
    def parent(depth: int, door: Any) -> int:
        if depth == 0:
            return 0
        with Client(*door) as client:
            return 1 + client.submit(parent, depth - 1, door).result()

    assert lone_client.submit(parent, 5, _door(lone_server)).result(timeout=30) == 5


def test_a_client_without_arguments_inside_a_task_speaks_with_the_tasks_own_server(lone_client: Client) -> None:
    def parent(number: int) -> int:
        return Client().run(tasks.double, number)

    assert lone_client.run(parent, 4) == 8


def test_a_task_waits_for_futures_one_by_one(each_isolation: Client) -> None:
    def parent(count: int) -> list[int]:
        futures = [current_task().submit(tasks.double, number) for number in range(count)]
        return [future.result() for future in futures]

    assert each_isolation.run(parent, 10) == [number * 2 for number in range(10)]


def test_a_task_waits_by_concurrent_futures_wait(each_isolation: Client) -> None:
    def parent(count: int) -> int:
        futures = [current_task().submit(tasks.double, number) for number in range(count)]
        done, pending = concurrent.futures.wait(futures)
        return len(done) - len(pending)

    assert each_isolation.run(parent, 5) == 5


def test_a_task_waits_by_as_completed(each_isolation: Client) -> None:
    def parent(count: int) -> list[int]:
        futures = [current_task().submit(tasks.double, number) for number in range(count)]
        return sorted(future.result() for future in concurrent.futures.as_completed(futures))

    assert each_isolation.run(parent, 5) == [0, 2, 4, 6, 8]


def test_threads_of_a_task_wait_for_sub_tasks_at_once(lone_client: Client) -> None:
    def parent(count: int) -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda number: current_task().run(tasks.double, number), range(count)))

    assert lone_client.run(parent, 6) == [0, 2, 4, 6, 8, 10]


def test_the_exception_of_a_sub_task_reaches_its_parent_as_its_own_type(lone_client: Client) -> None:
    def parent(number: int) -> str:
        try:
            current_task().run(tasks.half, number)
        except tasks.OddNumber as error:
            return f"caught {error.number}"
        return "nothing"

    assert lone_client.run(parent, 3) == "caught 3"
    with pytest.raises(tasks.OddNumber):
        lone_client.run(lambda number: current_task().run(tasks.half, number), 3)


def test_the_crash_of_a_sub_task_reaches_its_parent(lone_client: Client) -> None:
    def parent(code: int) -> int | None:
        try:
            current_task().run(tasks.exit_at_once, code)
        except TaskCrashed as error:
            return error.exit_status
        return None

    assert lone_client.run(parent, 3) == 3


def test_a_parent_over_its_timeout_while_it_waits_takes_its_sub_tasks_along(
    lone_client: Client, tmp_path: Path
) -> None:
    future = lone_client.options(timeout_seconds=1.0).submit(tasks.wait_for_blocked_child, str(tmp_path))
    with pytest.raises(TaskTimeout):
        future.result(timeout=20)
    wait_gone([int(wait_until((tmp_path / "blocked").read_text))])
    wait_until(lambda: not lone_client.tasks(state="running"))


def test_a_cancelled_parent_takes_the_sub_tasks_it_waits_for_along(lone_client: Client, tmp_path: Path) -> None:
    future = lone_client.submit(tasks.wait_for_blocked_child, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    assert future.cancel()
    wait_gone([int((tmp_path / "blocked").read_text())])
    wait_until(lambda: not lone_client.tasks(state="running"))
    assert lone_client.run(tasks.double, 3) == 6


def test_a_crashed_parent_takes_the_sub_tasks_it_waits_for_along(lone_client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> None:
        threading.Thread(target=tasks.wait_for_blocked_child, args=(folder,), daemon=True).start()
        tasks.wait_for_file(Path(folder) / "blocked")
        os._exit(1)

    with pytest.raises(TaskCrashed):
        lone_client.submit(parent, str(tmp_path)).result(timeout=20)
    wait_gone([int((tmp_path / "blocked").read_text())])
    wait_until(lambda: not lone_client.tasks(state="running"))


def test_queued_sub_tasks_of_a_dead_parent_never_run(lone_client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> None:
        current_task().map(tasks.block, [folder] * 5)

    future = lone_client.submit(parent, str(tmp_path))
    wait_until((tmp_path / "blocked").exists)
    assert future.cancel()
    wait_until(lambda: not lone_client.tasks(state="running") and not lone_client.tasks(state="ready"))


def test_follow_ups_live_on_after_their_parent(lone_client: Client) -> None:
    def parent(numbers: list[int]) -> str:
        messenger = current_task()
        messenger.submit_tasks([Task(RunFunction(tasks.double, number)) for number in numbers], need_followup=True)
        return "submitted"

    result = lone_client.run_procedure(RunFunction(parent, [1, 2, 3]), waiting_seconds=-1)
    assert result.data == "submitted"
    assert len(result.followup_task_ids) == 3
    assert [lone_client.result(task_id, timeout_seconds=20) for task_id in result.followup_task_ids] == [2, 4, 6]


def test_follow_ups_live_on_after_a_parent_that_crashed(lone_client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> None:
        task = Task(RunFunction(tasks.announce, folder, "follow-up"))
        current_task().submit_tasks([task], need_followup=True)
        os._exit(1)

    result = lone_client.run_procedure(RunFunction(parent, str(tmp_path)), waiting_seconds=-1)
    assert result.is_successful is False
    assert len(result.followup_task_ids) == 1
    assert lone_client.result(result.followup_task_ids[0], timeout_seconds=20) is None
    assert (tmp_path / "follow-up").exists()


def test_a_procedure_runs_another_through_its_messenger(lone_client: Client) -> None:
    assert lone_client.run_procedure(tasks.Half(8), waiting_seconds=-1).data == 4
    failed = lone_client.run_procedure(tasks.Half(7), waiting_seconds=-1)
    assert failed.is_successful is False
    assert isinstance(failed.data, tasks.OddNumber)


def test_a_map_function_runs_one_task_per_param(lone_client: Client) -> None:
    result = lone_client.run_procedure(MapFunction(tasks.own_pid, range(6)), waiting_seconds=-1)
    assert len(set(result.data)) == 6


def test_a_parent_asks_for_results_and_gets_none_for_what_is_unknown(lone_client: Client) -> None:
    def parent(_: object) -> list[bool]:
        messenger = current_task()
        task = Task(RunFunction(tasks.double, 4))
        messenger.submit_tasks([task])
        answers = messenger.query_results([task.task_id, "no-such-task"])
        return [answer is None for answer in answers]

    assert lone_client.run(parent, None) == [False, True]


def test_a_task_that_waits_for_itself_is_told_so(lone_client: Client) -> None:
    def parent(_: object) -> str:
        messenger = current_task()
        try:
            Client().result(messenger.task_id)
        except PalpableError as error:
            return type(error).__name__
        return "nothing"

    assert lone_client.submit(parent, None).result(timeout=20) == "WaitCycle"


def test_a_wait_with_a_timeout_inside_a_task_ends_in_time(lone_client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> str:
        future = current_task().submit(tasks.block, folder)
        try:
            future.result(timeout=0.2)
        except TimeoutError:
            future.cancel()
            return "gave up"
        return "unreachable"

    assert lone_client.submit(parent, str(tmp_path)).result(timeout=20) == "gave up"
    assert lone_client.run(tasks.double, 3) == 6


def _door(server: Server) -> tuple[Any, str, bytes]:
    return server.address, server.family, server.authkey


def test_sub_tasks_that_end_with_their_client_end_with_the_process_of_their_parent(client: Client) -> None:
    def parent() -> str:
        own = Client()
        return own.options(ends_with_client=True, delay_seconds=3600).submit(tasks.double, 1).task_id

    task_id = client.submit(parent).result(20)
    wait_until(lambda: [task.state for task in client.tasks() if task.task_id == task_id] == ["cancelled"])


# --- other servers ------------------------------------------------------------------------------------------------


def _calls(client: Client) -> list[Any]:
    """Every way to wait for results."""
    running = client.submit(tasks.double, 6)
    assert concurrent.futures.wait([running], timeout=20).done
    left = client.run_procedure(RunFunction(tasks.double, 8), waiting_seconds=0)
    return [
        client.run(tasks.double, 1),
        client.map(tasks.double, [2, 3]),
        list(client.imap(tasks.double, [4])),
        client.submit(tasks.double, 5).result(20),
        running.result(),
        client.run_procedure(RunFunction(tasks.double, 7), waiting_seconds=-1).data,
        client.result(left.task_id, timeout_seconds=20),
    ]


ANSWERS_TO_CALLS = [2, [4, 6], [8], 10, 12, 14, 16]


def test_a_task_has_an_executor_with_a_server_of_its_own(each_isolation: Client) -> None:
    def parent() -> tuple[int, list[int]]:
        with Executor(1) as executor:
            return executor.submit(tasks.double, 3).result(20), list(executor.map(tasks.double, [1, 2]))

    assert each_isolation.submit(parent).result(40) == (6, [2, 4])


def test_a_task_has_a_server_of_its_own_whose_tasks_have_sub_tasks(each_isolation: Client) -> None:
    def parent() -> Any:
        with Server(num_workers=1) as server, server.client() as client:
            return _calls(client), client.run(tasks.fib, 4)

    assert each_isolation.submit(parent).result(40) == (ANSWERS_TO_CALLS, 3)


def test_a_task_is_a_client_like_all_others_of_another_server(server: Server, each_isolation: Client) -> None:
    def parent(door: Any) -> list[Any]:
        with Client(*door) as client:
            return _calls(client)

    for _ in range(2):  # in worker mode, in one process
        assert each_isolation.submit(parent, _door(server)).result(40) == ANSWERS_TO_CALLS


def test_a_task_awaits_tasks_of_another_server_and_of_its_own(
    server: Server, lone_server: Server, each_isolation: Client
) -> None:
    async def call(door: Any) -> tuple[int, list[int], int]:
        async with AsyncClient(*door) as client:
            return (
                await client.run(tasks.double, 1),
                await client.map(tasks.double, [2, 3]),
                await (await client.submit(tasks.double, 4)),
            )

    def parent(door: Any) -> Any:
        return asyncio.run(call(door))

    for door in (_door(server), _door(lone_server)):
        assert each_isolation.submit(parent, door).result(40) == (2, [4, 6], 8)


def test_a_program_that_a_task_starts_has_a_server_of_its_own(each_isolation: Client) -> None:
    code = """
from palpable import Executor, Server
with Executor(1) as executor, Server(num_workers=1) as server, server.client() as client:
    print(executor.submit(abs, -3).result(20), client.run(abs, -4))
"""

    def parent() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert each_isolation.submit(parent).result(40) == "3 4\n"


def test_a_program_that_a_task_starts_frees_the_slot_while_it_waits_on_the_server_of_the_task(
    lone_server: Server, each_isolation: Client
) -> None:
    code = """
import ast, sys
from palpable import Client
address, family, authkey = ast.literal_eval(sys.argv[1])
with Client(address, family, authkey) as client:
    print(client.run(abs, -3))
"""

    def parent(door: Any) -> str:
        command = [sys.executable, "-c", code, repr(door)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert each_isolation.submit(parent, _door(lone_server)).result(40) == "3\n"


def test_what_a_task_submits_to_another_server_lives_on_after_it(server: Server, lone_client: Client) -> None:
    def parent(door: Any) -> str:
        with Client(*door) as client:
            return client.options(delay_seconds=0.5).submit(tasks.double, 3).task_id

    task_id = lone_client.submit(parent, _door(server)).result(20)
    with server.client() as observer:
        assert observer.result(task_id, timeout_seconds=20) == 6


def test_modules_are_imported_for_a_server_inside_a_task_as_outside_of_tasks(
    lone_client: Client, tmp_path: Path
) -> None:
    (tmp_path / "notes_where.py").write_text(
        "import os\nSEEN = [os.environ.get(f'PALPABLE_TASK_{name}', '').strip() for name in ('ID', 'TOKEN')]\n"
    )

    def parent(folder: str) -> list[str]:
        sys.path.insert(0, folder)
        with Server(num_workers=1, preload=["notes_where"]) as server, server.client() as client:
            return client.run(lambda _: sys.modules["notes_where"].SEEN, None)

    assert lone_client.submit(parent, str(tmp_path)).result(40) == ["", ""]
