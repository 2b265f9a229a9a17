"""A messenger: what it says, and what it asks for, in place of its task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from palpable import AsyncClient, Client, Messenger, Procedure, RunFunction, ServerUnreachable, Task, current_task
from palpable._wire.messages import QueryResults, SubmitTasks, TaskOptions, TaskProgressed, TaskSaid
from palpable.units.messenger import set_current_task
from support import tasks
from support.fake_server import FakeServer


class OwnError(Exception):
    """An exception of a user's own."""


class Fail(Procedure):
    def run(self, messenger: Any) -> None:
        raise OwnError("as told")


def double(number: int) -> int:
    return number * 2


@pytest.fixture
def sent() -> list[Any]:
    return []


@pytest.fixture
def messenger(fake_client: Client, sent: list[Any]) -> Iterator[Messenger]:
    messenger = Messenger("me", 2, time.monotonic() + 10, "work", fake_client._get_connection, sent.append)
    set_current_task(messenger)
    yield messenger
    set_current_task(None)


def test_what_is_said_is_sent_with_its_level(messenger: Messenger, sent: list[Any]) -> None:
    messenger.debug("a")
    messenger.info(5)
    messenger.warning("c")
    messenger.error("d")
    messenger.print("e", 1, None, sep="-", end="!")
    assert sent == [
        TaskSaid(task_id="me", level=level, text=text)
        for level, text in [("DEBUG", "a"), ("INFO", "5"), ("WARNING", "c"), ("ERROR", "d"), ("PRINT", "e-1-None!")]
    ]


def test_the_name_of_a_file_can_always_be_said(messenger: Messenger, sent: list[Any]) -> None:
    messenger.info("reading \udcff")
    messenger.progress(1, 2, "\udcff")
    assert sent == [
        TaskSaid(task_id="me", level="INFO", text="reading \\udcff"),
        TaskProgressed(task_id="me", done=1.0, total=2.0, note="\\udcff"),
    ]


def test_results_are_asked_for_by_strings_alone(fake_server: FakeServer, messenger: Messenger) -> None:
    with pytest.raises(TypeError, match="task_id must be a string, not None"):
        messenger.query_results([None])  # type: ignore[list-item]
    assert not fake_server.received_of(QueryResults)


def test_progress_is_sent_and_checked(messenger: Messenger, sent: list[Any]) -> None:
    messenger.progress(1, 4, "half way")
    assert sent == [TaskProgressed(task_id="me", done=1.0, total=4.0, note="half way")]
    with pytest.raises(TypeError, match="done must be a number from 0, not 'x'"):
        messenger.progress("x", 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="total"):
        messenger.progress(1, -4)


def test_the_facts_of_the_task(messenger: Messenger) -> None:
    assert (messenger.task_id, messenger.attempt, messenger.name) == ("me", 2, "work")
    assert messenger.remaining_seconds is not None and 0 < messenger.remaining_seconds <= 10
    assert Messenger("x", 1, time.monotonic() - 1).remaining_seconds == 0
    assert Messenger("x").remaining_seconds is None


def test_the_current_task_is_found_from_anywhere_and_outside_it_is_an_error(messenger: Messenger) -> None:
    assert current_task() is messenger
    set_current_task(None)
    with pytest.raises(RuntimeError, match="outside of a task"):
        current_task()


def test_sub_tasks(messenger: Messenger) -> None:
    assert messenger.run(double, 4) == 8
    assert messenger.map(double, [1, 2]) == [2, 4]
    assert messenger.submit(pow, 2, 10).result(timeout=10) == 1024
    assert list(messenger.imap(double, range(3))) == [0, 2, 4]
    assert sorted(messenger.imap_unordered(double, range(3))) == [0, 2, 4]
    assert messenger.run_procedure(RunFunction(double, 5)) == 10
    with pytest.raises(OwnError):
        messenger.run_procedure(Fail())


def test_tasks_are_submitted_and_asked_for_later(fake_server: FakeServer, messenger: Messenger) -> None:
    tasks = [Task(RunFunction(double, number)) for number in range(3)]
    task_ids = messenger.submit_tasks(tasks)
    assert task_ids == [task.task_id for task in tasks]
    messenger.submit_tasks([Task(RunFunction(double, 1))], need_followup=True)
    results = messenger.query_results([*task_ids, "never heard of"])
    assert [result and result.data for result in results] == [0, 2, 4, None]
    assert messenger.query_results(task_ids) == [None] * 3
    submits = fake_server.received_of(SubmitTasks)
    assert [submit.options.is_followup for submit in submits] == [False, True]
    assert {submit.delivery for submit in submits} == {"none"}


def test_a_client_without_arguments_uses_the_line_of_its_task(messenger: Messenger, fake_client: Client) -> None:
    client = Client()
    assert client.run(double, 4) == 8
    assert client._get_connection() is fake_client._get_connection()
    client.close()
    assert messenger.run(double, 4) == 8


def test_a_messenger_made_outside_of_a_task_says_nothing_and_can_ask_nobody() -> None:
    messenger = Messenger("x")
    messenger.info("nobody hears")
    messenger.progress(1, 2)
    with pytest.raises(RuntimeError, match="outside of a task"):
        messenger.run(double, 1)


def test_a_client_that_can_not_use_that_line_must_be_told_where_the_server_is(messenger: Messenger) -> None:
    with pytest.raises(ServerUnreachable, match="inside a task, an AsyncClient"):
        asyncio.run(AsyncClient().run(double, 1))


# --- options ----------------------------------------------------------------------------------------------------


def test_options_are_for_the_sub_tasks_of_that_view_alone(fake_server: FakeServer, messenger: Messenger) -> None:
    view = messenger.options(retries=3).options(priority=1)
    assert view.submit(double, 1).result() == 2
    assert view.run_procedure(RunFunction(double, 2)) == 4
    view.submit_tasks([Task(RunFunction(double, 3))], need_followup=True)
    assert messenger.map(double, [1]) == [2]
    assert [request.options for request in fake_server.received if isinstance(request, SubmitTasks)] == [
        TaskOptions(retries=3, priority=1),
        TaskOptions(retries=3, priority=1),
        TaskOptions(retries=3, priority=1, is_followup=True),
        TaskOptions(),
    ]


def test_a_function_brings_its_options_into_a_task(fake_server: FakeServer, messenger: Messenger) -> None:
    assert messenger.map(tasks.treble, [1]) == [3]
    assert messenger.options(retries=0).submit(tasks.treble, 1).result() == 3
    submitted = [request.options for request in fake_server.received if isinstance(request, SubmitTasks)]
    assert [(options.retries, options.name) for options in submitted] == [(2, "treble it"), (0, "treble it")]


def test_a_view_speaks_for_the_same_task(messenger: Messenger, sent: list[Any]) -> None:
    view = messenger.options(priority=1)
    view.info("hello")
    assert (view.task_id, view.name, view.attempt, view.deadline) == ("me", "work", 2, messenger.deadline)
    assert sent == [TaskSaid(task_id="me", level="INFO", text="hello")]


def test_a_key_makes_a_sub_task_once(fake_server: FakeServer, messenger: Messenger) -> None:
    keyed = messenger.options(idempotency_key="k")
    assert keyed.run_procedure(RunFunction(double, 2)) == 4
    assert keyed.submit(double, 2).task_id == fake_server.executed[0]
    with pytest.raises(ValueError, match="idempotency_key='k' names one task"):
        keyed.submit_tasks([Task(RunFunction(double, 3))])


def test_wrong_options_are_refused_at_once(messenger: Messenger) -> None:
    with pytest.raises(ValueError, match="retries must be a whole number from 0 to 1000"):
        messenger.options(retries=-1)
