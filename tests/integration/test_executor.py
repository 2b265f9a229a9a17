"""The executor on real processes: its own server, crashes, initializers, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import pickle
import threading
from pathlib import Path

import psutil
import pytest

from palpable import Client, Executor, TaskCrashed, current_task
from support import tasks
from support.scripts import run_script
from support.wait import wait_until

SETTING = "not set"


def set_setting(value: str) -> None:
    global SETTING
    SETTING = value


def _children() -> list[psutil.Process]:
    return psutil.Process().children()


def test_a_private_server_comes_with_the_first_call_and_goes_with_shutdown() -> None:
    executor = Executor(2)
    assert not _children()
    assert executor.submit(pow, 2, 10).result(timeout=30) == 1024
    assert _children()
    executor.shutdown()
    assert not _children()


def test_an_executor_that_is_dropped_takes_its_server_along_when_its_futures_are_done() -> None:
    future = Executor(1).submit(tasks.double, 4)
    gc.collect()
    assert future.result(timeout=30) == 8
    wait_until(lambda: not _children(), timeout_seconds=20)
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("palpable")])


def test_processes_are_kept_or_fresh_as_wanted() -> None:
    with Executor(1) as executor:
        assert len({executor.submit(os.getpid).result(timeout=30) for _ in range(5)}) == 1
    with Executor(1, isolation="task") as executor:
        assert len({executor.submit(os.getpid).result(timeout=30) for _ in range(5)}) == 5
    with Executor(1, max_tasks_per_child=2) as executor:
        assert len({executor.submit(os.getpid).result(timeout=30) for _ in range(6)}) == 3


def test_a_process_that_dies_fails_its_own_call_alone() -> None:
    with Executor(2) as executor:
        futures = [executor.submit(tasks.double, number) for number in range(20)]
        crashed = executor.submit(os._exit, 3)
        futures += [executor.submit(tasks.double, number) for number in range(20)]
        with pytest.raises(concurrent.futures.process.BrokenProcessPool) as caught:
            crashed.result(timeout=30)
        assert isinstance(caught.value, TaskCrashed) and caught.value.exit_status == 3
        assert [future.result(timeout=30) for future in futures] == [number * 2 for number in range(20)] * 2


def test_an_initializer_prepares_each_process() -> None:
    for isolation in ("worker", "task"):
        with Executor(2, isolation=isolation, initializer=set_setting, initargs=("set",)) as executor:
            assert {future.result(timeout=30) for future in [executor.submit(_setting) for _ in range(10)]} == {"set"}
            assert set(executor.map(_setting_of, range(10), chunksize=3)) == {"set"}


def test_what_an_initializer_of_the_main_script_assigns_is_found_by_every_later_call(tmp_path: Path) -> None:
    printed = run_script(tmp_path, _SCRIPT_WITH_INITIALIZER)
    assert printed == "['first set 0', 'first set 1', 'first set 2']\n[8, 9]\n[8, 9]\n"


_SCRIPT_WITH_INITIALIZER = """
from palpable import Executor

SETTING = None
CACHE = {}


def prepare(value):
    global SETTING
    SETTING = value
    CACHE["number"] = 7


def setting_of(number):
    return f"first {SETTING} {number}"


def number_of(number):
    return CACHE["number"] + number


if __name__ == "__main__":
    with Executor(1, initializer=prepare, initargs=("set",)) as executor:
        print(list(executor.map(setting_of, range(3))))
        print(list(executor.map(number_of, [1, 2])))
        print(list(executor.map(number_of, [1, 2], chunksize=2)))
"""


def _setting() -> str:
    return SETTING


def _setting_of(_: int) -> str:
    return SETTING


def test_calls_may_make_calls_and_wait_for_them_with_one_worker() -> None:
    def parent(depth: int) -> int:
        return 1 + current_task().run(parent, depth - 1) if depth else 0

    with Executor(1) as executor:
        assert executor.submit(parent, 4).result(timeout=60) == 4


def test_shutdown_ends_no_call_that_runs_and_lets_none_run_that_it_cancelled(tmp_path: Path) -> None:
    def note(number: int) -> int:
        (tmp_path / str(number)).touch()
        return number

    for _ in range(3):
        for file in tmp_path.iterdir():
            file.unlink()
        executor = Executor(2)
        futures = [executor.submit(note, number) for number in range(2000)]
        wait_until(lambda: any(future.done() for future in futures))  # noqa: B023 - called at once
        executor.shutdown(cancel_futures=True)
        executor.shutdown(cancel_futures=True)
        ran = {int(file.name) for file in tmp_path.iterdir()}
        assert {number for number, future in enumerate(futures) if not future.cancelled()} == ran
        assert all(futures[number].result() == number for number in ran)


def test_shutdown_waits_for_a_call_that_runs_when_it_cancels_the_others(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait_for_gate() -> str:
        (tmp_path / "begun").touch()
        while not gate.exists():
            threading.Event().wait(0.01)
        return "done"

    executor = Executor(1)
    running, queued = executor.submit(wait_for_gate), executor.submit(wait_for_gate)
    wait_until((tmp_path / "begun").exists)
    executor.shutdown(wait=False, cancel_futures=True)
    assert queued.cancelled() and not running.done()
    gate.touch()
    assert running.result(timeout=30) == "done"
    executor.shutdown()


class Unpicklable:
    def __reduce__(self) -> str:
        raise TypeError("no way")


def test_what_can_not_be_pickled_fails_its_future_and_nothing_else() -> None:
    with Executor(1) as executor:
        future = executor.submit(id, Unpicklable())
        with pytest.raises(pickle.PicklingError, match="no way"):
            future.result(timeout=30)
        with pytest.raises(pickle.PicklingError):
            executor.submit(Unpicklable).result(timeout=30)
        assert executor.submit(tasks.double, 2).result(timeout=30) == 4


def test_a_chunk_of_map_yields_what_was_done_before_its_error() -> None:
    with Executor(1) as executor:
        found: list[int] = []
        with pytest.raises(tasks.OddNumber):
            found.extend(executor.map(tasks.half, [0, 2, 4, 6, 7, 8], chunksize=3))
        assert found == [0, 1, 2, 3]


def test_an_asyncio_loop_runs_functions_in_it() -> None:
    async def main(executor: Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        with pytest.raises(tasks.OddNumber):
            await loop.run_in_executor(executor, tasks.half, 3)
        pids = await asyncio.gather(*(loop.run_in_executor(executor, os.getpid) for _ in range(20)))
        assert os.getpid() not in pids
        return list(await asyncio.gather(*(loop.run_in_executor(executor, tasks.double, n) for n in range(100))))

    with Executor(2) as executor:
        assert asyncio.run(main(executor)) == list(range(0, 200, 2))


def test_dask_computes_a_graph_with_it() -> None:
    dask = pytest.importorskip("dask")

    @dask.delayed
    def increment(number: int) -> int:
        return number + 1

    @dask.delayed
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @dask.delayed
    def where(_: int) -> int:
        return os.getpid()

    with Executor(2) as executor, dask.config.set(scheduler=executor):
        assert total([increment(increment(number)) for number in range(50)]).compute() == sum(range(2, 52))
        assert os.getpid() not in dask.compute(*[where(number) for number in range(4)])
        with pytest.raises(ZeroDivisionError):
            dask.delayed(divmod)(1, 0).compute()
        assert dask.compute(increment(1), increment(2)) == (2, 3)


def test_an_executor_of_a_client_shares_its_server(client: Client) -> None:
    with Executor(client=client) as executor:
        assert list(executor.map(lambda number: number + 1, range(50))) == list(range(1, 51))
    assert client.run(tasks.double, 2) == 4


def test_a_running_call_can_be_cancelled(tmp_path: Path) -> None:
    with Executor(1) as executor:
        future = executor.submit(tasks.block, str(tmp_path))
        wait_until(lambda: (tmp_path / "blocked").exists())
        assert future.cancel() and future.cancelled()
        assert executor.submit(tasks.double, 2).result(timeout=30) == 4


def test_the_exit_of_the_interpreter_waits_for_what_was_submitted(tmp_path: Path) -> None:
    source = """
        import time
        from pathlib import Path
        from palpable import Executor

        def work(name):
            time.sleep(0.5)
            Path(name).touch()

        if __name__ == "__main__":
            Executor(1).submit(work, "dropped")
            held = Executor(1)
            held.submit(work, "held")
            shut = Executor(1)
            shut.submit(work, "shut")
            shut.shutdown(wait=False)
    """
    run_script(tmp_path, source)
    assert {"dropped", "held", "shut"} <= {path.name for path in tmp_path.iterdir()}


def test_nothing_can_be_submitted_while_the_interpreter_exits(tmp_path: Path) -> None:
    source = """
        import atexit
        from palpable import Executor

        @atexit.register
        def run_last():
            try:
                executor.submit(id, None)
            except RuntimeError as error:
                print(error)

        executor = Executor(1)
        executor.submit(id, 42).result()
    """
    assert "cannot schedule new futures after" in run_script(tmp_path, source)
