"""`@task`: a function that carries the options of its tasks."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import subprocess
import sys
import types
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from cloudpickle import cloudpickle

import palpable.units.task
from palpable import AsyncClient, Client, Executor, TaskFunction, task
from palpable._wire.messages import SubmitTasks, TaskOptions
from palpable._wire.payload import dumps_function, dumps_result, loads
from palpable.units.option_levels import MOST_REMEMBERED, client_levels
from support import tasks
from support.fake_server import FakeServer


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @task(retries=1)
    def apply(self, number: int) -> int:
        return self.factor * number

    @staticmethod
    @task(retries=8)
    def twice(number: int) -> int:
        return number * 2

    @classmethod
    @task(retries=9)
    def made(cls, factor: int) -> int:
        return cls(factor).factor


@task
def plain(number: int) -> int:
    return number


def options_received(server: FakeServer) -> list[TaskOptions]:
    return [request.options for request in server.received if isinstance(request, SubmitTasks)]


# --- a function as before ---------------------------------------------------------------------------------------


def test_it_is_called_as_the_function() -> None:
    assert tasks.treble(4) == 12
    assert tasks.treble(number=4) == 12


def test_it_looks_like_the_function() -> None:
    assert tasks.treble.__name__ == tasks.treble.__qualname__ == "treble"
    assert tasks.treble.__module__ == tasks.__name__
    assert tasks.treble.__doc__ == "Return three times the number."
    assert list(inspect.signature(tasks.treble).parameters) == ["number"]
    assert repr(tasks.treble) == f"<task {tasks.__name__}.treble>"


def test_it_works_as_a_method() -> None:
    assert Scale(5).apply(2) == 10
    assert Scale.apply(Scale(5), 2) == 10
    assert Scale.twice(2) == Scale(1).twice(2) == 4
    assert Scale.made(7) == 7


def test_options_may_be_left_out() -> None:
    assert type(plain) is TaskFunction
    assert plain(3) == 3


def test_the_facade_gives_the_decorator_and_leaves_the_module_of_the_same_name_alone() -> None:
    assert palpable.task is task
    assert isinstance(palpable.units.task, types.ModuleType)
    assert palpable.units.task.Task is palpable.Task


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: task(retries=-1), ValueError, "retries must be a whole number from 0 to 1000"),
        (
            lambda: task(idempotency_key="k"),
            TypeError,
            "idempotency_key names one task, and can't be an option of a fun",
        ),  # type: ignore[call-overload]
        (lambda: task(tries=1), TypeError, "there is no option 'tries'"),  # type: ignore[call-overload]
        (lambda: task(3), TypeError, "@task is for functions, not for 3"),  # type: ignore[call-overload]
        (lambda: task(Scale), TypeError, "@task is for functions, not for <class"),
        (lambda: task(staticmethod(len)), TypeError, "put @task below @staticmethod"),
        (lambda: task(retries=1)(None), TypeError, "@task is for functions, not for None"),  # type: ignore[arg-type]
        (lambda: tasks.treble.options(priority=0.5), TypeError, "priority must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_is_told_at_once(use: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use()


# --- whose options count ----------------------------------------------------------------------------------------


def test_options_of_the_function_win_over_those_of_the_client_one_by_one() -> None:
    levels = client_levels({"retries": 9, "priority": 4})
    assert levels.of(tasks.treble) == TaskOptions(retries=2, timeout_seconds=30.0, name="treble it", priority=4)
    assert levels.of(tasks.double) == TaskOptions(retries=9, priority=4)


def test_options_of_the_call_win_over_those_of_the_function_one_by_one() -> None:
    levels = client_levels({"retries": 9}).nearer({"timeout_seconds": 1, "name": "now"})
    assert levels.of(tasks.treble) == TaskOptions(retries=2, timeout_seconds=1.0, name="now")


def test_a_default_that_is_set_nearer_wins() -> None:
    assert client_levels({}).nearer({"retries": 0, "name": None}).of(tasks.treble) == TaskOptions(
        timeout_seconds=30.0, set_to_default=("retries",)
    )
    assert client_levels({"retries": 9}).of(tasks.treble.options(retries=None)) == TaskOptions(
        timeout_seconds=30.0, name="treble it"
    )


def test_options_of_a_function_are_set_one_by_one_too() -> None:
    twice = task(priority=1)(task(retries=1, name="inner")(tasks.double))
    assert client_levels({}).of(twice) == TaskOptions(priority=1, retries=1, name="inner")
    assert client_levels({}).of(tasks.patient_treble).retries == 7


@pytest.mark.parametrize(
    "function",
    [tasks.treble, functools.partial(tasks.treble, 1), functools.partial(functools.partial(tasks.treble), number=1)],
    ids=["itself", "in a partial", "in a partial of a partial"],
)
def test_the_options_are_found(function: Any) -> None:
    assert client_levels({}).of(function).retries == 2


def test_the_options_of_a_method_are_found() -> None:
    assert client_levels({}).of(Scale(1).apply).retries == 1
    assert client_levels({}).of(Scale.twice).retries == 8
    assert client_levels({}).of(Scale.made).retries == 9
    assert client_levels({}).of(Scale(1).__init__) == TaskOptions()  # type: ignore[misc]
    assert client_levels({}).of(len) == TaskOptions()


def test_tasks_of_one_function_have_the_identical_options_so_that_they_travel_together() -> None:
    levels = client_levels({})
    assert levels.of(tasks.treble) is levels.of(tasks.treble)
    assert levels.of(tasks.double) is levels.of(tasks.half)


def test_functions_that_are_gone_are_not_kept_for_ever() -> None:
    levels = client_levels({})
    function = task(retries=1)(lambda: None)
    options = weakref.ref(function)
    levels.of(function)
    for _ in range(MOST_REMEMBERED + 1):
        assert levels.of(tasks.treble.options(retries=3)).retries == 3
    del function
    gc.collect()
    assert options() is None
    assert len(levels._made) <= MOST_REMEMBERED


# --- over the wire ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.submit(tasks.treble, 2).result(),
        lambda client: client.run(tasks.treble, 2),
        lambda client: client.map(tasks.treble, [2])[0],
        lambda client: next(client.imap(tasks.treble, [2])),
        lambda client: next(client.imap_unordered(tasks.treble, [2])),
        lambda client: client.options().submit(tasks.treble, number=2).result(),
        lambda client: client.submit(functools.partial(tasks.treble, 2)).result(),
    ],
    ids=["submit", "run", "map", "imap", "imap_unordered", "a view", "a partial"],
)
def test_every_call_of_a_client_uses_them(
    fake_server: FakeServer, fake_client: Client, call: Callable[[Client], Any]
) -> None:
    assert call(fake_client) == 6
    assert options_received(fake_server) == [TaskOptions(retries=2, timeout_seconds=30.0, name="treble it")]


def test_a_submitted_method_uses_them(fake_server: FakeServer, fake_client: Client) -> None:
    assert fake_client.submit(Scale(3).apply, 2).result() == 6
    assert fake_client.submit(Scale.twice, 2).result() == 4
    assert fake_client.submit(Scale.made, 2).result() == 2
    assert [options.retries for options in options_received(fake_server)] == [1, 8, 9]


def test_every_call_of_an_async_client_uses_them(fake_server: FakeServer) -> None:
    async def use() -> list[Any]:
        async with AsyncClient(fake_server.address, "AF_UNIX", fake_server.authkey) as client:
            return [
                await (await client.submit(tasks.treble, 2)),
                await client.run(tasks.treble, 2),
                await client.map(tasks.treble, [2]),
                [value async for value in client.imap(tasks.treble, [2])],
                await client.options(retries=0).options(priority=1).run(tasks.treble, 2),
            ]

    assert asyncio.run(use()) == [6, 6, [6], [6], 6]
    *others, last = options_received(fake_server)
    assert others == [TaskOptions(retries=2, timeout_seconds=30.0, name="treble it")] * 4
    assert last == TaskOptions(timeout_seconds=30.0, name="treble it", priority=1, set_to_default=("retries",))


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_an_executor_uses_them(fake_server: FakeServer, fake_client: Client, isolation: Any) -> None:
    with Executor(client=fake_client, isolation=isolation) as executor:
        future: Future[int] = executor.submit(tasks.treble, 2)
        assert future.result() == 6
        assert list(executor.map(tasks.treble, [1, 2, 3], chunksize=2)) == [3, 6, 9]
    assert {(options.isolation, options.retries) for options in options_received(fake_server)} == {(isolation, 2)}


def test_the_isolation_of_a_function_wins_over_that_of_an_executor(
    fake_server: FakeServer, fake_client: Client
) -> None:
    with Executor(client=fake_client) as executor:
        assert executor.submit(tasks.treble.options(isolation="task"), 2).result() == 6
    assert [options.isolation for options in options_received(fake_server)] == ["task"]


def test_two_functions_with_options_do_not_share_a_message(fake_server: FakeServer, fake_client: Client) -> None:
    futures = [fake_client.submit(function, 1) for function in (tasks.treble, tasks.patient_treble, tasks.double)]
    assert [future.result() for future in futures] == [3, 3, 2]
    assert [options.retries for options in options_received(fake_server)] == [2, 7, 0]


# --- how it travels ---------------------------------------------------------------------------------------------


def test_one_of_a_module_travels_as_its_name() -> None:
    pickled = dumps_function(tasks.treble)
    assert len(pickled.data) < 60
    assert loads(pickled.data) is tasks.treble
    assert dumps_function(tasks.treble) is pickled, "it is pickled once"


def test_the_same_function_with_other_options_is_sent_as_the_one_that_has_the_name() -> None:
    assert dumps_function(tasks.patient_treble) == dumps_function(tasks.treble)
    assert loads(dumps_function(task(retries=1)(tasks.double)).data) is tasks.double


def test_a_local_one_is_sent_as_the_function_alone() -> None:
    factor = 3

    @task(retries=1)
    def scaled(number: int) -> int:
        return number * factor

    sent = loads(dumps_function(scaled).data)
    assert type(sent) is types.FunctionType
    assert sent(2) == 6
    assert dumps_function(scaled) is dumps_function(scaled)


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps, dumps_result])
def test_as_a_value_it_keeps_its_identity_or_its_options(dumps: Callable[[Any], bytes]) -> None:
    loaded, other, apply = pickle.loads(dumps((tasks.treble, tasks.patient_treble, Scale.apply)))
    assert loaded is tasks.treble
    assert apply is Scale.apply
    assert other(2) == 6
    assert client_levels({}).of(other).retries == 7
    assert other.__wrapped__ is tasks.treble.__wrapped__


@pytest.mark.parametrize("dumps", [cloudpickle.dumps, dumps_result])
def test_a_local_one_keeps_its_options_as_a_value(dumps: Callable[[Any], bytes]) -> None:
    @task(retries=4)
    def count_down(number: int) -> int:
        return count_down(number - 1) if number else 0

    loaded = pickle.loads(dumps(count_down))
    assert loaded(3) == 0
    assert client_levels({}).of(loaded).retries == 4


def test_a_copy_is_the_same() -> None:
    assert copy.copy(tasks.treble) is copy.deepcopy(tasks.treble) is tasks.treble


PROGRAM = """
import pickle, sys
from cloudpickle import cloudpickle
from palpable import task
from palpable._wire.payload import dumps_call, dumps_function

@task(retries=3)
def factorial(number):
    return number * factorial(number - 1) if number else 1

class Shape:
    @task(retries=1)
    def area(self):
        return 12

if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(factorial)) is factorial
    assert dumps_function(factorial) is dumps_function(factorial), "it is pickled once"
    helper = lambda: factorial(5)
    assert dumps_function(helper) is dumps_function(helper), "and so is what calls it"
    parts = dumps_function(factorial).data, dumps_call((factorial, Shape().area), {}), cloudpickle.dumps(factorial)
    sys.stdout.buffer.write(pickle.dumps(parts))
"""


def test_one_of_a_script_travels_by_value() -> None:
    written = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True).stdout
    sent, call, value = pickle.loads(written)
    assert loads(sent)(5) == 120
    ((factorial, area), _) = pickle.loads(call)
    assert (factorial(5), area()) == (120, 12)
    assert client_levels({}).of(factorial).retries == 3
    assert client_levels({}).of(area).retries == 1
    assert client_levels({}).of(pickle.loads(value)).retries == 3


def test_a_module_registered_for_it_travels_by_value() -> None:
    cloudpickle.register_pickle_by_value(tasks)
    try:
        assert type(loads(dumps_function(tasks.treble).data)) is types.FunctionType
    finally:
        cloudpickle.unregister_pickle_by_value(tasks)
    assert loads(dumps_function(tasks.treble).data) is tasks.treble
