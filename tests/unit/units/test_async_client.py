"""The calls of an AsyncClient, against a fake server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import (
    AsyncClient,
    AuthenticationFailed,
    Client,
    NotPicklable,
    PayloadTooLarge,
    Procedure,
    RunFunction,
    ServerUnreachable,
    TaskCancelled,
    TaskResponse,
    UnknownTask,
)
from palpable._connection import progress_bar
from palpable._connection.async_link import AsyncLink
from palpable._wire.messages import BeginWait, CancelTasks, GetStatus, SubmitTasks, WatchResults
from palpable.units import async_client
from support.fake_server import FakeServer


class OwnError(Exception):
    """An exception of a user's own."""


class Fail(Procedure):
    def run(self, messenger: Any) -> None:
        raise OwnError("as told")


def double(number: int) -> int:
    return number * 2


def refuse_three(number: int) -> int:
    if number == 3:
        raise OwnError("not 3")
    return number


def _run(server: FakeServer, work: Callable[[AsyncClient], Awaitable[Any]], **parameters: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(server.address, None, server.authkey, **parameters) as client:
            return await work(client)

    return asyncio.run(main())


async def _until(fact: Callable[[], Any]) -> Any:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0.005)
    return fact()


def test_calls_are_awaited_side_by_side_without_a_thread(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        assert await client.run(double, 4) == 8
        assert await asyncio.gather(*(client.run(double, number) for number in range(500))) == list(range(0, 1000, 2))
        assert not [one for one in threading.enumerate() if one.name.startswith(("palpable", "asyncio"))]
        assert await client.map(double, range(100)) == list(range(0, 200, 2))
        assert await client.map(double, []) == []
        assert await client.options(isolation="worker").map(double, iter(range(100))) == list(range(0, 200, 2))

    _run(fake_server, work)
    submits = fake_server.received_of(SubmitTasks)
    assert len(submits) < 50
    assert [task.form for task in submits[-1].tasks] == ["chunk"] * 8


def test_a_failure_is_raised_as_its_own_type(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(OwnError):
            await client.run(refuse_three, 3)
        with pytest.raises(OwnError):
            await client.map(refuse_three, range(10))
        with pytest.raises(NotPicklable):
            await client.run(double, threading.Lock())

    _run(fake_server, work)


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_iterating_in_order_and_as_they_finish(fake_server: FakeServer, isolation: Any) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    async def work(client: AsyncClient) -> None:
        view = client.options(isolation=isolation)
        assert [value async for value in view.imap(double, range(100))] == list(range(0, 200, 2))
        assert [value async for value in view.imap(double, source())] == list(range(0, 200, 2))
        assert sorted([value async for value in view.imap_unordered(double, range(100), window=7)]) == list(
            range(0, 200, 2)
        )

    _run(fake_server, work)


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_progress_bar_counts_params(fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch, isolation: Any) -> None:
    class Bar:
        def draw(self, done: int) -> None:
            seen.append(done)

        def close(self) -> None:
            pass

    async def work(client: AsyncClient) -> None:
        view = client.options(isolation=isolation)
        assert await view.map(double, range(250), progress=True) == list(range(0, 500, 2))
        assert seen == sorted(seen) and seen[-1] == 250
        seen.clear()
        assert [value async for value in view.imap(double, range(4), progress=True)] == [0, 2, 4, 6]
        assert seen == [1, 2, 3, 4]

    seen: list[int] = []
    monkeypatch.setattr(progress_bar, "_drawing", lambda name, total: Bar())
    monkeypatch.setattr(progress_bar, "REDRAW_SECONDS", 0.0)
    _run(fake_server, work)


def test_an_endless_source_is_read_as_far_as_needed(fake_server: FakeServer) -> None:
    read = itertools.count()

    async def work(client: AsyncClient) -> None:
        results = client.imap(double, read, window=10)
        assert [await anext(results) for _ in range(50)] == list(range(0, 100, 2))
        await results.aclose()

    _run(fake_server, work)
    assert next(read) <= 60


@pytest.mark.parametrize(("window", "tasks"), [(1, 1), (2, 2), (10, 8), (1000, 8)])
def test_a_stream_begins_with_one_param_a_task_and_no_more_tasks_than_the_workers_need(
    fake_server: FakeServer, window: int, tasks: int
) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        results = client.options(isolation="worker").imap(double, read, window=window)
        taking = asyncio.ensure_future(anext(results))
        await _until(lambda: sum(len(sent.tasks) for sent in fake_server.received_of(SubmitTasks)) == tasks)
        assert next(read) == tasks
        fake_server.release()
        await taking
        await results.aclose()

    read = itertools.count()
    _run(fake_server, work)


def test_a_source_that_raises_is_told_after_what_came_before(fake_server: FakeServer) -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise OwnError("in the middle")

    async def work(client: AsyncClient) -> list[int]:
        found = []
        with pytest.raises(OwnError, match="in the middle"):
            async for value in client.imap(double, source()):
                found.append(value)
        return found

    assert _run(fake_server, work) == [0, 2, 4]


def test_a_future_may_be_awaited_by_several_and_cancelled(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        future = await client.submit(pow, 2, 10)
        assert await asyncio.gather(_wait(future), _wait(future)) == [1024, 1024]
        assert future.done() and not await future.cancel()
        fake_server.hold()
        future = await client.submit(double, 1)
        assert not future.done()
        assert await future.cancel()
        with pytest.raises(TaskCancelled):
            await future

    async def _wait(future: Awaitable[Any]) -> Any:
        return await future

    _run(fake_server, work)


def test_cancelling_who_awaits_a_future_leaves_its_task_alone(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        future = await client.submit(double, 4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await future
        fake_server.release()
        assert await future == 8

    _run(fake_server, work)
    assert not fake_server.received_of(CancelTasks)


@pytest.mark.parametrize(
    "call",
    [lambda c: c.options(ends_with_client=True).run(double, 1), lambda c: c.map(double, [1, 2])],
    ids=["run, if asked", "map"],
)
def test_cancelling_a_call_whose_results_nobody_wants_then_ends_its_tasks(
    fake_server: FakeServer, call: Callable[[AsyncClient], Any]
) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        waiting = asyncio.create_task(call(client))
        await _until(lambda: fake_server.received_of(SubmitTasks))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await _until(lambda: fake_server.received_of(CancelTasks))

    _run(fake_server, work)


def test_cancelling_who_awaits_a_call_leaves_its_task_alone(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        waiting = asyncio.create_task(client.run(double, 4))
        await _until(lambda: fake_server._held)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        fake_server.release()
        assert await client.run(double, 1) == 2
        assert len(fake_server.executed) == 2

    _run(fake_server, work)
    assert not fake_server.received_of(CancelTasks)


def test_results_come_while_an_asynchronous_source_is_waited_for(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        taken = asyncio.Event()

        async def params() -> AsyncIterator[int]:
            yield 1
            yield 2
            async with asyncio.timeout(10):
                await taken.wait()
            yield 3

        results = client.imap(double, params())
        assert [await anext(results), await anext(results)] == [2, 4]
        taken.set()
        assert [value async for value in results] == [6]

    _run(fake_server, work)


def test_an_asynchronous_source_is_read_no_further_than_the_window_and_left_when_the_map_is_closed(
    fake_server: FakeServer,
) -> None:
    async def work(client: AsyncClient) -> None:
        read: list[int] = []
        ended = asyncio.Event()

        async def params() -> AsyncIterator[int]:
            try:
                for number in itertools.count():
                    read.append(number)
                    yield number
                    await asyncio.sleep(0)
            finally:
                ended.set()

        results = client.options(isolation="worker").imap(double, params(), window=10, chunksize=5)
        assert [await anext(results) for _ in range(200)] == [number * 2 for number in range(200)]
        await results.aclose()
        assert len(read) <= 200 + 50 + 1  # the one that is being waited for
        await _until(ended.is_set)

    _run(fake_server, work)


def test_an_asynchronous_source_that_raises_comes_after_all_it_had_given(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> list[int]:
        async def params() -> AsyncIterator[int]:
            for number in range(300):
                yield number
            raise OwnError("in the middle")

        found: list[int] = []
        with pytest.raises(OwnError, match="in the middle"):
            async for value in client.options(isolation="worker").imap(double, params()):
                found.append(value)
        return found

    assert _run(fake_server, work) == [number * 2 for number in range(300)]


def test_one_client_serves_two_loops_after_each_other(fake_server: FakeServer) -> None:
    client = AsyncClient(fake_server.address, "AF_UNIX", fake_server.authkey)

    async def work() -> list[int]:
        return await asyncio.gather(*(client.run(double, number) for number in range(10)))

    async def last() -> list[int]:
        async with client:
            return await work()

    expected = [number * 2 for number in range(10)]
    assert asyncio.run(work()) == expected
    assert asyncio.run(work()) == expected
    assert asyncio.run(last()) == expected


def test_a_call_from_another_loop_that_runs_at_the_same_time_is_refused(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        assert await client.run(double, 1) == 2
        with pytest.raises(RuntimeError, match="make one AsyncClient for each loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.run(double, 1)))
        fake_server.hold()
        future = await client.submit(double, 2)
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await asyncio.to_thread(lambda: asyncio.run(_await(future)))
        fake_server.release()
        assert await future == 4
        assert await client.run(double, 3) == 6

    async def _await(future: Awaitable[Any]) -> Any:
        return await future

    _run(fake_server, work)


def test_who_names_the_same_key_awaits_the_same_task(fake_server: FakeServer) -> None:
    fake_server.is_holding = True

    async def work(client: AsyncClient) -> None:
        keyed = client.options(idempotency_key="order 17")
        first, second = await keyed.submit(double, 1), await keyed.submit(double, 1)
        third = asyncio.ensure_future(keyed.run(double, 1))
        await _until(lambda: any(isinstance(request, SubmitTasks) for request in fake_server.received))
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        fake_server.release()
        assert (await first, await second) == (2, 2)
        assert first.task_id == second.task_id == (await keyed.run_procedure(RunFunction(double, 1))).task_id
        with pytest.raises(ValueError, match="idempotency_key='order 17' names one task"):
            await keyed.map(double, [1])
        with pytest.raises(ValueError, match="idempotency_key='order 17' names one task"):
            keyed.imap(double, [1])

    _run(fake_server, work)
    assert not any(isinstance(request, CancelTasks) for request in fake_server.received), "it is not theirs alone"


def test_procedures_and_questions(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        result = await client.run_procedure(RunFunction(double, 4))
        assert (result.is_successful, result.data, result.exit_status) == (True, 8, 0)
        assert await client.ajax_run_procedure(Fail()) == TaskResponse.ERROR
        pending = await client.run_procedure(RunFunction(double, 4), waiting_seconds=0)
        assert pending.is_successful is None
        task_id = pending.task_id
        assert await client.result(task_id) == 8
        assert await client.logs(task_id) == f"output of {task_id}\n"
        assert [piece async for piece in client.follow_logs(task_id)] == [f"output of {task_id}\n"]
        assert [task.task_id for task in await client.tasks()] == [task_id]
        assert await client.ajax_query_result(task_id) == TaskResponse.SUCCESS
        assert await client.query_result(task_id) is None
        with pytest.raises(UnknownTask):
            await client.result(task_id)
        with pytest.raises(UnknownTask):
            await client.logs(task_id)
        assert not await client.cancel(task_id)
        assert (await client.get_status())["num_workers"] == 2
        fake_server.hold()
        waiting = await client.run_procedure(RunFunction(double, 4), waiting_seconds=0.01)
        with pytest.raises(TimeoutError):
            await client.result(waiting.task_id, timeout_seconds=0.01)
        await client.quit()

    _run(fake_server, work)


def test_a_result_that_was_taken_is_gone_for_everybody(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        task_id = (await client.run_procedure(RunFunction(double, 4), waiting_seconds=0)).task_id
        await client.result(task_id)
        assert await client.query_result(task_id) is not None
        await _until(lambda: not fake_server.reports)

    _run(fake_server, work)


def test_a_server_that_goes_fails_what_is_pending_and_the_next_call_connects_again(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        future = await client.submit(double, 1)
        await _until(lambda: fake_server.received_of(SubmitTasks))
        fake_server.close()
        with pytest.raises(ServerUnreachable):
            await future
        fake_server.is_holding = False
        fake_server.start()
        assert await client.run(double, 2) == 4

    _run(fake_server, work)


def test_a_closed_client_says_so(fake_server: FakeServer) -> None:
    async def main() -> None:
        client = AsyncClient(fake_server.address, None, b"key")
        assert await client.run(double, 1) == 2
        await client.close()
        await client.close()
        with pytest.raises(ServerUnreachable, match="closed"):
            await client.run(double, 1)

    asyncio.run(main())


def test_nobody_there_or_the_wrong_key(fake_server: FakeServer, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(str(tmp_path / "none"), None, b"key") as client:
            with pytest.raises(ServerUnreachable, match="there is no socket file"):
                await client.run(double, 1)
            assert await client.ajax_query_result("x") == TaskResponse.ERROR
        async with AsyncClient(fake_server.address, None, b"another") as client:
            with pytest.raises(AuthenticationFailed):
                await client.run(double, 1)

    asyncio.run(main())


def test_arguments_are_checked_before_the_server_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        client = AsyncClient(str(tmp_path / "none"), None, b"key")
        with pytest.raises(TypeError, match="must be a function"):
            await client.run(5, 1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="chunksize"):
            await client.map(double, [1], chunksize=0)
        with pytest.raises(ValueError, match="window"):
            client.imap(double, [1], window=0)
        with pytest.raises(TypeError, match="not iterable"):
            client.imap(double, 5)  # type: ignore[arg-type]
        wrong: Any = 5
        for call in (client.cancel, client.logs, client.result, client.query_result):
            with pytest.raises(TypeError, match="task_id must be a string, not 5"):
                await call(wrong)
        with pytest.raises(TypeError, match="task_id must be a string, not 5"):
            client.follow_logs(wrong)
        with pytest.raises(TypeError, match="each of tags must be a string, not 5"):
            await client.tasks(tags=[wrong])
        with pytest.raises(TypeError, match="each of state must be a string, not 5"):
            await client.purge([wrong])

    asyncio.run(main())


def test_a_call_that_is_cancelled_while_it_connects_leaves_no_complaint_behind(fake_server: FakeServer) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        # In which turn of the loop the socket is there and nothing is proven yet is not ours to know.
        for turns in range(20):
            client = AsyncClient(fake_server.address, None, b"key")
            call = asyncio.create_task(client.run(double, 1))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            await client.close()
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert complaints == []


def test_it_works_on_uvloop_too(fake_server: FakeServer) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> Any:
        async with AsyncClient(fake_server.address, None, b"key") as client:
            return await client.map(double, range(300)), await client.run(len, b"x" * 3_000_000)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == (list(range(0, 600, 2)), 3_000_000)


@pytest.fixture
def inside_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of a task, as it seems."""
    monkeypatch.setenv("PALPABLE_TASK_ID", "parent")
    monkeypatch.setenv("PALPABLE_TASK_TOKEN", "token")


@pytest.mark.usefixtures("inside_a_task")
def test_inside_a_task_every_wait_is_told(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        waiting = asyncio.create_task(client.map(double, [1, 2]))
        await _until(lambda: fake_server.received_of(BeginWait))
        fake_server.release()
        assert await waiting == [2, 4]

    _run(fake_server, work)
    assert [len(wait.task_ids) for wait in fake_server.received_of(BeginWait)] == [2]


@pytest.mark.usefixtures("inside_a_task")
def test_inside_a_task_a_client_of_another_server_is_one_like_all_and_connects_again(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server.task_token = "another"

    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        waiting = asyncio.create_task(client.map(double, [1, 2]))
        await _until(lambda: fake_server.received_of(SubmitTasks))
        await client.get_status()  # answered after the tasks were accepted; else they are submitted again
        fake_server.drop_connections()
        await _until(lambda: fake_server.received_of(WatchResults))
        fake_server.release()
        assert await waiting == [2, 4]
        monkeypatch.setenv("PALPABLE_TASK_ID", "the next")
        assert await client.run(double, 4) == 8

    _run(fake_server, work)
    assert [conversation.inside_task for conversation in fake_server.conversations] == [""]
    assert not fake_server.received_of(BeginWait)


@pytest.mark.usefixtures("inside_a_task")
def test_a_connection_of_no_task_does_not_go_on_over_a_socket_of_one(fake_server: FakeServer) -> None:
    fake_server.task_token = "another"

    async def work(client: AsyncClient) -> None:
        assert await client.run(double, 2) == 4
        fake_server.task_token = "token"
        fake_server.drop_connections()
        await _until(lambda: client._shared.connection is not None and not client._shared.connection.is_usable)
        assert await client.run(double, 3) == 6

    _run(fake_server, work)
    assert [len(wait.task_ids) for wait in fake_server.received_of(BeginWait)] == [1]


# --- connections that break -----------------------------------------------------------------------------------------


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path, is_durable=True) as server:
        yield server


def test_what_is_awaited_arrives_over_the_next_connection(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        fake_server.hold()
        future = await client.submit(double, 1)
        await _until(lambda: fake_server.received_of(SubmitTasks))
        await client.get_status()  # answered after the tasks were accepted; else they are submitted again
        fake_server.drop_connections()
        await _until(lambda: fake_server.received_of(WatchResults))
        fake_server.release()
        assert await future == 2
        assert len(fake_server.executed) == 1

    _run(fake_server, work)


def test_what_was_not_answered_is_asked_again(fake_server: FakeServer) -> None:
    def cut(conversation: Any, request: Any) -> bool:
        del fake_server.hooks[type(request)]
        fake_server.drop_connections()
        return True

    async def work(client: AsyncClient) -> None:
        fake_server.hooks[SubmitTasks] = fake_server.hooks[GetStatus] = cut
        assert await client.map(double, [1, 2, 3]) == [2, 4, 6]
        assert (await client.get_status())["num_workers"] == 2
        assert len(fake_server.received_of(GetStatus)) == 2
        assert sorted(fake_server.executed) == sorted(set(fake_server.executed))

    _run(fake_server, work)


def test_a_durable_server_that_is_away_is_waited_for(durable_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        durable_server.hold()
        future = await client.submit(double, 1)
        await client.get_status()  # answered after the task was accepted
        durable_server.close()
        waiting = asyncio.ensure_future(client.run(double, 5))
        await asyncio.sleep(0)
        durable_server.start()
        durable_server.release()
        assert await future == 2
        assert await waiting == 10
        durable_server.close()
        await _until(lambda: client._shared.connection is not None and not client._shared.connection.is_usable)
        asyncio.get_running_loop().call_later(0.1, durable_server.start)
        assert await client.run(double, 6) == 12  # begun while it was away

    _run(durable_server, work)


def test_closing_while_the_server_is_away_leaves_nothing_behind(durable_server: FakeServer) -> None:
    async def main() -> None:
        client = AsyncClient(durable_server.address, None, b"key")
        durable_server.hold()
        future = await client.submit(double, 1)
        await client.get_status()  # answered after the task was accepted
        durable_server.close()
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ServerUnreachable):
            await future
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_loop_that_ends_while_the_server_is_away_ends(durable_server: FakeServer) -> None:
    async def main() -> None:
        client = AsyncClient(durable_server.address, None, b"key")
        durable_server.hold()
        await client.submit(double, 1)
        await client.get_status()  # answered after the task was accepted
        durable_server.close()
        await _until(
            lambda: client._shared.connection is not None and client._shared.connection._reconnecting is not None
        )

    asyncio.run(main())


def test_who_wants_no_reconnecting_fails_at_once(durable_server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(durable_server.address, None, b"key", reconnect_seconds=0) as client:
            durable_server.hold()
            future = await client.submit(double, 1)
            await _until(lambda: durable_server.received_of(SubmitTasks))
            durable_server.drop_connections()
            with pytest.raises(ServerUnreachable, match="the server closed the connection"):
                await future

    asyncio.run(main())
    with pytest.raises(ValueError, match="reconnect_seconds must be a number from 0"):
        AsyncClient(durable_server.address, None, b"key", reconnect_seconds=-1)


def test_who_submits_thousands_in_a_row_lets_results_come_meanwhile(fake_server: FakeServer) -> None:
    async def work(client: AsyncClient) -> None:
        first = await client.submit(double, 1)
        # Nothing else is awaited here: if `submit` gave the loop no turn, this would not end.
        while not first.done():
            await client.submit(double, 2)
        assert await first == 2

    _run(fake_server, work)


def test_a_client_that_is_closed_while_it_connects_stays_closed(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        open_link, links = async_client.open_link, list[AsyncLink]()
        goes_on = asyncio.Event()

        async def open_slowly(*arguments: Any) -> AsyncLink:
            links.append(await open_link(*arguments))
            await goes_on.wait()
            return links[0]

        monkeypatch.setattr(async_client, "open_link", open_slowly)
        client = AsyncClient(fake_server.address, None, b"key")
        asking = [asyncio.create_task(client.get_status()) for _ in range(2)]
        await _until(lambda: links)
        await client.close()
        goes_on.set()
        for error in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(error, ServerUnreachable) and "this client is closed" in str(error)
        assert len(links) == 1 and links[0].broken
        with pytest.raises(ServerUnreachable, match="this client is closed"):
            await client.submit(double, 1)

    asyncio.run(main())


def test_what_is_larger_than_the_server_accepts_is_refused_in_the_words_of_a_client(tmp_path: Path) -> None:
    with FakeServer(tmp_path, max_payload_bytes=10_000) as server, Client(server.address, None, b"key") as client:
        with pytest.raises(PayloadTooLarge) as told:
            client.run(len, b"x" * 20_000)
        with pytest.raises(PayloadTooLarge) as told_here:
            _run(server, lambda client: client.run(len, b"x" * 20_000))
    assert str(told_here.value) == str(told.value) and "Pass large data by file" in str(told.value)
