"""The executor, on a fake server: what its documentation promises. Real processes: tests/integration."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, Executor
from palpable._wire.messages import CancelTasks, SubmitTasks
from support.fake_server import FakeServer
from support.wait import wait_until


def double(number: int) -> int:
    return number * 2


@pytest.fixture
def fake_server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path) as server:
        yield server


@pytest.fixture
def fake_client(fake_server: FakeServer) -> Iterator[Client]:
    with Client(fake_server.address, "AF_UNIX", fake_server.authkey) as client:
        yield client


@pytest.fixture
def executor(fake_client: Client) -> Iterator[Executor]:
    with Executor(client=fake_client) as executor:
        yield executor


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": 1.5}, TypeError, "max_workers must be a whole number"),
        ({"max_workers": 10_000}, ValueError, "max_workers must be a whole number from 1 to 4096"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"isolation": "thread"}, ValueError, "isolation must be"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
        ({"client": 5}, TypeError, "client must be"),
    ],
)
def test_a_parameter_out_of_range_is_refused_at_once(
    parameters: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Executor(**parameters)


def test_the_workers_of_a_client_are_its_servers(fake_client: Client) -> None:
    with pytest.raises(ValueError, match="leave them out"):
        Executor(2, client=fake_client)
    assert Executor(client=fake_client)._max_workers == 2


def test_it_is_an_executor(executor: Executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor.submit(pow, 2, 10).result(timeout=10) == 1024
    assert executor.submit(dict, self=1, fn=2).result(timeout=10) == {"self": 1, "fn": 2}
    with pytest.raises(TypeError):
        executor.submit(fn=double)  # type: ignore[call-arg]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
@pytest.mark.parametrize("buffersize", [None, 1, 4])
def test_map_yields_in_order(executor: Executor, chunksize: int, buffersize: int | None) -> None:
    assert list(executor.map(pow, range(10), range(20), chunksize=chunksize, buffersize=buffersize)) == [
        number**number for number in range(10)
    ]
    assert list(executor.map(double, [], chunksize=chunksize, buffersize=buffersize)) == []


def test_map_reads_all_at_once_or_as_far_as_its_buffer(executor: Executor) -> None:
    read: list[int] = []

    def params() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    executor.map(double, params())
    assert len(read) == 100
    read.clear()
    results = executor.map(double, params(), buffersize=5)
    assert len(read) == 5
    assert next(results) == 0
    assert len(read) <= 6
    read.clear()
    results = executor.map(double, params(), buffersize=2, chunksize=10)
    assert len(read) == 20


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"chunksize": 0}, ValueError), ({"chunksize": 1.5}, TypeError), ({"buffersize": 0}, ValueError)],
)
def test_map_checks_its_arguments_at_once(executor: Executor, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        executor.map(double, [1], **arguments)


def test_map_raises_in_its_place_and_cancels_the_rest(fake_server: FakeServer, executor: Executor) -> None:
    results = executor.map(divmod, [1, 1, 1], [1, 0, 1])
    assert next(results) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_map_that_times_out_cancels_the_rest(fake_server: FakeServer, executor: Executor) -> None:
    fake_server.hold()
    results = executor.map(double, [1, 2], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    assert sum(len(cancel.task_ids) for cancel in fake_server.received_of(CancelTasks)) == 2


def test_nothing_is_accepted_after_shutdown_which_may_be_called_twice(executor: Executor) -> None:
    future = executor.submit(double, 4)
    executor.shutdown()
    executor.shutdown(wait=False)
    assert future.done()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(double, 1)
    with pytest.raises(RuntimeError):
        executor.map(double, [1])


def test_shutdown_waits_unless_told_otherwise(fake_server: FakeServer, executor: Executor) -> None:
    fake_server.hold()
    future = executor.submit(double, 4)
    executor.shutdown(wait=False)
    assert not future.done()
    threading.Timer(0.1, fake_server.release).start()
    executor.shutdown()
    assert future.result(timeout=0) == 8


def test_shutdown_can_cancel_what_has_not_begun(fake_server: FakeServer, executor: Executor) -> None:
    fake_server.hold()
    futures = [executor.submit(double, number) for number in range(5)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_the_client_it_was_given_stays_open(fake_client: Client) -> None:
    with Executor(client=fake_client) as executor:
        assert executor.submit(double, 4).result(timeout=10) == 8
    assert fake_client.run(double, 4) == 8


def test_an_executor_that_is_dropped_ends_when_its_futures_have(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = Executor(client=fake_client).submit(double, 4)
    gc.collect()
    fake_server.release()
    assert future.result(timeout=10) == 8
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "palpable-executor-closer"])


def test_the_isolation_is_its_own(fake_server: FakeServer, executor: Executor, fake_client: Client) -> None:
    executor.submit(double, 1).result(timeout=10)
    with Executor(client=fake_client, isolation="task") as other:
        other.submit(double, 1).result(timeout=10)
    assert [submit.options.isolation for submit in fake_server.received_of(SubmitTasks)] == ["worker", "task"]


def test_a_failing_initializer_breaks_it(fake_client: Client) -> None:
    def fail() -> None:
        raise ValueError("no way")

    with Executor(client=fake_client, initializer=fail) as executor:
        future = executor.submit(double, 1)
        with pytest.raises(concurrent.futures.BrokenExecutor, match="no way"):
            future.result(timeout=10)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            executor.submit(double, 1)
        assert executor._broken


def test_an_initializer_is_called_once_for_each_process(fake_client: Client) -> None:
    calls = Path(fake_client._address.path).parent / "calls"  # type: ignore[union-attr]

    def note(text: str) -> None:
        with calls.open("a") as file:
            file.write(text)

    with Executor(client=fake_client, initializer=note, initargs=("once ",)) as executor:
        assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]
        assert list(executor.map(double, range(5), chunksize=2)) == [0, 2, 4, 6, 8]
    assert calls.read_text() == "once "


def test_asyncio_runs_in_it(executor: Executor) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, double, number) for number in range(20)))

    assert asyncio.run(main()) == list(range(0, 40, 2))


@pytest.mark.speed
def test_a_future_reaches_its_callbacks_soon(executor: Executor) -> None:
    executor.submit(double, 1).result(timeout=10)
    times = []
    for _ in range(20):
        arrived, start = threading.Event(), time.monotonic()
        executor.submit(double, 1).add_done_callback(lambda _, arrived=arrived: arrived.set())  # type: ignore[misc]
        assert arrived.wait(10)
        times.append(time.monotonic() - start)
    assert sorted(times)[10] < 0.02


def test_an_executor_that_is_closed_while_another_thread_submits_waits_for_that_call_too(
    fake_server: FakeServer, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert executor.submit(double, 1).result(10) == 2
    pool, is_submitting, goes_on = executor._pool, threading.Event(), threading.Event()
    get_connection = pool._calls._get_connection  # type: ignore[union-attr]

    def get_slowly() -> Any:
        is_submitting.set()
        assert goes_on.wait(20)
        return get_connection()

    monkeypatch.setattr(pool._calls, "_get_connection", get_slowly)
    fake_server.hold()
    was_done: list[bool] = []
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        submitting = threads.submit(executor.submit, double, 2)
        assert is_submitting.wait(20)
        closing = threads.submit(pool.close)
        closing.add_done_callback(lambda _: was_done.append(submitting.result(20).done()))
        # A pool that looks for futures too early has time for it here, and to be closed there. One that waits for both
        # needs none.
        concurrent.futures.wait([closing], timeout=0.2)
        goes_on.set()
        concurrent.futures.wait([closing], timeout=0.2)
        fake_server.release()
        closing.result(20)
    assert was_done == [True] and submitting.result().result(10) == 4
