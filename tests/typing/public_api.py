"""The public API as a user's type checker sees it. Checked by mypy and pyright, never run.

Where a call is wrong on purpose, the comment that lets it pass must be needed: both checkers are told to complain of
one that is not.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, assert_type

from palpable import (
    AsyncClient,
    Client,
    Executor,
    MapFunction,
    Messenger,
    PalpableError,
    Procedure,
    RunFunction,
    Server,
    Task,
    TaskCancelled,
    TaskCrashed,
    TaskFunction,
    TaskFuture,
    TaskResponse,
    TaskResult,
    TaskTimeout,
    current_task,
    task,
)


def double(number: int) -> int:
    return number * 2


def spell(number: int, *, loud: bool = False) -> str:
    return str(number).upper() if loud else str(number)


@task(retries=3, timeout_seconds=60, name="fetch", retry_on=(OSError, ValueError), tags=["net"])
def fetch(url: str, *, limit: int = 10) -> bytes:
    return url.encode()[:limit]


@task
def size(path: str) -> int:
    return len(path)


class Shop:
    @task(isolation="worker")
    def price(self, article: str) -> float:
        return len(article) / 2


class Add(Procedure):
    def __init__(self, first: int, second: int) -> None:
        self.first = first
        self.second = second

    def run(self, messenger: Messenger) -> int:
        messenger.info("adding")
        messenger.progress(1, 2, "half")
        assert_type(messenger.map(double, [1, 2]), list[int])
        assert_type(messenger.submit(spell, 1, loud=True), TaskFuture[str])
        assert_type(messenger.run(double, 1), int)
        assert_type(messenger.attempt, int)
        messenger.submit_tasks([Task(RunFunction(double, 1))], need_followup=True)
        assert_type(messenger.query_results(["id"]), list[TaskResult | None])
        return self.first + self.second


def with_a_client(client: Client) -> None:
    assert_type(client.map(double, [1, 2]), list[int])
    assert_type(client.map(spell, range(3)), list[str])
    assert_type(client.run(double, 1), int)
    assert_type(client.submit(double, 1), TaskFuture[int])
    assert_type(client.submit(spell, 1, loud=True).result(), str)
    view = client.options(isolation="worker", timeout_seconds=1.5, priority=2, ends_with_client=True)
    assert_type(view.run(double, 1), int)
    assert_type(view.options(priority=3).submit(double, 1), TaskFuture[int])
    for number in client.imap(double, [1]):
        assert_type(number, int)
    for number in client.imap_unordered(double, [1]):
        assert_type(number, int)
    with_options = client.options(
        retries=3,
        backoff_seconds=0.5,
        max_backoff_seconds=60,
        retry_on=OSError,
        crash_retries=1,
        at_most_once=False,
        delay_seconds=5,
        at=datetime.now() + timedelta(hours=1),
        idempotency_key="order 17",
        name="double it",
        tags=("a", "b"),
    )
    assert_type(with_options.submit(double, 1), TaskFuture[int])
    Client(retries=3, timeout_seconds=None, priority=None)
    assert_type(client.run_procedure(Add(1, 2), waiting_seconds=-1), TaskResult)
    assert_type(client.run_procedure(MapFunction(double, [1])), TaskResult)
    assert_type(client.query_result("id"), TaskResult | None)
    assert_type(client.result("id", timeout_seconds=1), Any)
    assert_type(client.ajax_run_procedure(Add(1, 2)), TaskResponse)
    assert_type(client.ajax_query_result("id"), TaskResponse)
    assert_type(client.cancel("id"), bool)
    assert_type(client.logs("id"), str)
    for piece in client.logs("id", follow=True):
        assert_type(piece, str)
    for info in client.tasks(state="running", limit=5):
        assert_type(info.task_id, str)
        assert_type(info.cpu_seconds, float | None)
    assert_type(client.get_status(), dict[str, Any])


def with_wrong_arguments(client: Client) -> None:
    client.submit(double)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.submit(spell, 1, quiet=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.options(isolation="thread")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.options(retrys=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.options(tags="red")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.options(retry_on="OSError")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client(idempotency_key="k")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Client("path", "AF_UNIX", "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def with_task_functions(client: Client, messenger: Messenger) -> None:
    named: TaskFunction[[str], int] = size
    assert_type(named.options(priority=1)("u"), int)
    assert_type(fetch("u", limit=3), bytes)
    assert_type(size("p"), int)
    assert_type(fetch.options(priority=1)("u"), bytes)
    assert_type(client.submit(fetch, "u", limit=3), TaskFuture[bytes])
    assert_type(client.map(size, ["p"]), list[int])
    assert_type(client.submit(Shop().price, "pen").result(), float)
    assert_type(messenger.options(retries=2).map(size, ["p"]), list[int])
    fetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.submit(fetch, limit=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    task(retries="3")(double)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    task(idempotency_key="k")(double)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def with_a_server() -> None:
    with Server(num_workers=2, isolation="worker", preload=["json"]) as server:
        assert_type(server, Server)
        assert_type(server.is_listening, bool)
        assert_type(server.status, dict[str, Any])
        with server.client() as client:
            assert_type(client, Client)
    Server("logs", ("127.0.0.1", 8089), "AF_INET", b"key", 2, 10800, 100000, 60).start().stop()


def with_futures(future: TaskFuture[int]) -> None:
    assert_type(future.task_id, str)
    assert_type(future.result(timeout=1), int)
    as_base: concurrent.futures.Future[int] = future
    done, _ = concurrent.futures.wait([as_base])
    assert_type(done, set[concurrent.futures.Future[int]])


def with_an_executor() -> None:
    with Executor(max_workers=2) as executor:
        base: concurrent.futures.Executor = executor
        assert_type(base.submit(double, 1).result(), int)
        assert_type(executor.submit(double, 1).result(), int)
        numbers: Iterator[int] = executor.map(double, [1, 2])
        assert_type(list(numbers), list[int])


async def with_an_async_client() -> None:
    async with AsyncClient("path", "AF_UNIX", b"key") as client:
        assert_type(await client.run(double, 1), int)
        assert_type(await client.map(double, [1], progress=True), list[int])
        assert_type(await client.map(size, ["p"]), list[int])
        assert_type(await client.options(retries=1).options(name="n").run(size, "p"), int)
        future = await client.submit(fetch, "u", limit=3)
        assert_type(await future, bytes)
        assert_type(await future.state(), str)
        assert_type(await future.progress(), tuple[float, float, str] | None)
        assert_type(await future.logs(), str)
        async for number in client.imap(double, [1]):
            assert_type(number, int)
        assert_type(await client.query_result("id"), TaskResult | None)
        assert_type(await client.cancel("id"), bool)


def with_results(result: TaskResult) -> None:
    assert_type(result.is_successful, bool | None)
    assert_type(result.exit_status, int | None)
    assert_type(result.cpu_seconds, float | None)
    assert_type(result.peak_memory_bytes, int | None)
    assert_type(result.elapsed_seconds, float | None)
    assert_type(result.attempt, int | None)
    assert_type(result.followup_task_ids, tuple[str, ...])


def with_errors(client: Client) -> None:
    try:
        client.run(double, 1)
    except TaskCrashed as error:
        assert_type(error.exit_status, int | None)
        assert_type(error.output_tail, str)
        broken: concurrent.futures.BrokenExecutor = error
        assert broken
    except TaskTimeout as error:
        assert_type(error.elapsed_seconds, float | None)
    except TaskCancelled as error:
        cancelled: concurrent.futures.CancelledError = error
        assert cancelled
    except PalpableError:
        pass


def inside_a_task() -> None:
    assert_type(current_task(), Messenger)
