"""What may be sent as a function, an argument, a result or an exception, and what is said when it may not."""

from __future__ import annotations

import functools
import importlib
import operator
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, RunFunction, Server
from palpable.units.task_exceptions import NotPicklable, NotUnpicklable, PalpableError, RemoteTaskError
from support import tasks
from support.scripts import run_script

pytestmark = pytest.mark.shared_server


def test_lambdas_closures_and_partials_are_functions_like_any_other(client: Client) -> None:
    offset = 10

    def add_offset(number: int) -> int:
        return number + offset

    assert client.map(lambda number: number + 1, [1, 2, 3]) == [2, 3, 4]
    assert client.map(add_offset, [1, 2]) == [11, 12]
    assert client.map(functools.partial(operator.add, 5), [1, 2]) == [6, 7]
    assert client.map(str.upper, ["a", "b"]) == ["A", "B"]
    assert client.run([3, 1, 2].count, 1) == 1


def test_what_a_closure_captures_is_as_it_is_at_the_call(client: Client) -> None:
    captured = [1]

    def total(_: object) -> int:
        return sum(captured)

    assert client.run(total, None) == 1
    captured.append(2)
    assert client.run(total, None) == 3


def test_a_module_that_the_server_does_not_find_is_told_with_what_to_do(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def work(number):\n    import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").work
    for isolation in ("task", "worker"):
        with pytest.raises(ModuleNotFoundError, match="only_here") as caught:
            client.options(isolation=isolation).run(work, 1)
        assert "start the server in the folder" in caught.value.__notes__[0]

    def missing() -> None:
        import no_such_module_at_all  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all") as caught:
        client.submit(missing).result()
    assert not hasattr(caught.value, "__notes__"), "the task's own affair"


def test_an_async_function_and_a_generator_are_told_how_to_be_run(client: Client) -> None:
    async def wait() -> None: ...

    def count() -> Iterator[int]:
        yield 1

    with pytest.raises(NotPicklable, match=r"a coroutine.*asyncio\.run"):
        client.submit(wait).result()
    with pytest.raises(NotPicklable, match=r"a generator.*Return a list"):
        client.submit(count).result()


def test_a_function_that_calls_itself_by_name_travels(client: Client) -> None:
    def factorial(number: int) -> int:
        return 1 if number < 2 else number * factorial(number - 1)

    assert client.run(factorial, 10) == 3628800


def test_a_class_made_in_a_function_comes_back_as_the_callers_own(client: Client) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    result = client.run(Point, 3)
    assert type(result) is Point
    assert result.x == 3


def test_large_arguments_and_results_travel(client: Client) -> None:
    data = bytes(range(256)) * 40_000
    assert client.run(lambda block: block[::-1], data) == data[::-1]


def test_many_kinds_of_values_come_back_equal(client: Client) -> None:
    values: list[Any] = [
        None,
        True,
        -1,
        2**200,
        1.5,
        "text",
        "\ud800",
        b"bytes",
        (1, (2,)),
        [],
        {"a": [1]},
        {1, 2},
        frozenset({3}),
        bytearray(b"x"),
        range(3),
        slice(1, 2),
        complex(1, 2),
        ...,
        NotImplemented,
        int,
        len,
        Path("a"),
    ]
    assert client.map(lambda value: value, values) == values


def test_submit_takes_any_arguments_by_position_and_by_name(client: Client) -> None:
    def join(*words: str, sep: str = " ", **more: int) -> str:
        return sep.join(words) + str(more)

    assert (
        client.submit(join, "a", "b", sep="-", self=1, function=2).result(timeout=20) == "a-b{'self': 1, 'function': 2}"
    )


# --- what cannot travel -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [threading.Lock(), sys.__stderr__, (number for number in [1])], ids=lambda _: "")
def test_an_argument_that_cannot_be_pickled_is_refused_at_the_call(client: Client, thing: Any) -> None:
    for call in (client.run, client.submit):
        with pytest.raises(NotPicklable) as caught:
            call(tasks.double, thing)
        assert type(thing).__name__.lower() in str(caught.value).lower()
    assert client.run(tasks.double, 2) == 4


def test_a_function_that_cannot_be_pickled_is_refused_at_the_call(client: Client) -> None:
    lock = threading.Lock()

    def use_lock(_: object) -> None:
        lock.acquire()

    with pytest.raises(NotPicklable, match="lock"):
        client.map(use_lock, [1])
    assert client.run(tasks.double, 2) == 4


def test_a_param_in_the_middle_of_a_map_that_cannot_be_pickled_is_named(client: Client) -> None:
    with pytest.raises(NotPicklable):
        client.map(tasks.double, [1, threading.Lock(), 3])
    assert client.map(tasks.double, [1, 2]) == [2, 4]


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_result_that_cannot_be_pickled_fails_its_task_and_says_so(client: Client, isolation: str) -> None:
    def give_lock(_: object) -> Any:
        return threading.Lock()

    with pytest.raises(NotPicklable, match="lock"):
        client.options(isolation=isolation).run(give_lock, None)
    assert client.run(tasks.double, 2) == 4


def test_a_result_that_the_client_cannot_unpickle_is_an_error_with_the_reason(client: Client) -> None:
    def give(_: object) -> Any:
        class Treacherous:
            def __reduce__(self) -> Any:
                return __import__, ("a_module_that_is_nowhere",)

        return Treacherous()

    with pytest.raises(NotUnpicklable) as caught:
        client.run(give, None)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert "a_module_that_is_nowhere" in str(caught.value)
    result = client.run_procedure(RunFunction(give, None), waiting_seconds=-1)
    assert result.is_successful is False
    assert isinstance(result.data, NotUnpicklable)


def test_an_exception_that_cannot_be_pickled_keeps_its_name_message_and_traceback(client: Client) -> None:
    def fail(_: object) -> None:
        class Held(Exception):
            def __init__(self) -> None:
                super().__init__("held by a lock")
                self.lock = threading.Lock()

        raise Held

    with pytest.raises(RemoteTaskError) as caught:
        client.run(fail, None)
    assert "Held" in caught.value.type_name
    assert caught.value.message == "held by a lock"
    assert "in fail" in str(caught.value.__cause__)


def test_an_exception_whose_str_and_reduce_raise_is_reported_all_the_same(client: Client) -> None:
    def fail(_: object) -> None:
        class Hostile(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text for you")

            def __reduce__(self) -> Any:
                raise RuntimeError("no pickle for you")

        raise Hostile

    with pytest.raises(RemoteTaskError, match="Hostile"):
        client.run(fail, None)


def test_an_exception_keeps_its_type_attributes_notes_and_cause(client: Client) -> None:
    def fail(number: int) -> None:
        try:
            tasks.half(number)
        except ValueError as error:
            error.add_note("seen on a Tuesday")
            raise

    with pytest.raises(tasks.OddNumber) as caught:
        client.run(fail, 3)
    assert caught.value.number == 3
    assert caught.value.__notes__ == ["seen on a Tuesday"]
    assert "raise OddNumber" in str(caught.value.__cause__)


def test_an_exception_group_arrives_whole(client: Client) -> None:
    def fail(_: object) -> None:
        raise ExceptionGroup("two at once", [ValueError(1), TypeError("b")])

    with pytest.raises(ExceptionGroup) as caught:
        client.run(fail, None)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, TypeError]


def test_a_module_that_tasks_cannot_import_is_named(client: Client) -> None:
    module = types.ModuleType("only_the_client_has")
    exec("def answer(_):\n    return 42\n", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        with pytest.raises((PalpableError, ModuleNotFoundError), match="only_the_client_has"):
            client.run(module.answer, None)
    finally:
        del sys.modules[module.__name__]
    assert client.run(tasks.double, 2) == 4


# --- programs of users: what is defined in __main__ ---------------------------------------------------------------


MAIN_CLASSES = """
    import enum
    from palpable import Server

    class Shape:
        count = 0

        def __init__(self, side):
            self.side = side
            Shape.count += 1

        def area(self):
            return self.side ** 2

    class Colour(enum.Enum):
        RED = 1

    class TooSmall(Exception):
        pass

    FACTOR = 3

    def scale(shape):
        return Shape(shape.side * FACTOR)

    def refuse(shape):
        raise TooSmall(shape.side)

    def colour(_):
        return Colour.RED

    if __name__ == "__main__":
        with Server(num_workers=1) as server, server.client() as client:
            area = Shape.area
            results = client.map(scale, [Shape(1), Shape(2)])
            assert [type(result) for result in results] == [Shape, Shape]
            assert [result.area() for result in results] == [9, 36]
            assert Shape.area is area, "the caller's own class was changed"
            assert Shape.count == 2, Shape.count
            FACTOR = 4
            assert client.run(scale, Shape(1)).side == 4
            assert client.run(colour, None) is Colour.RED
            try:
                client.run(refuse, Shape(5))
            except TooSmall as error:
                assert type(error) is TooSmall and error.args == (5,)
            else:
                raise AssertionError("no exception")
            print("done")
"""


def test_classes_enums_and_exceptions_of_a_script_come_back_as_its_own(tmp_path: Path) -> None:
    assert run_script(tmp_path, MAIN_CLASSES) == "done\n"


MAIN_BY_NAME = """
    import concurrent.futures
    import multiprocessing
    import pickle
    from palpable import Server

    class Point:
        def __init__(self, x):
            self.x = x

    def point(x):
        return Point(x * x)

    def in_a_pool(count):
        with multiprocessing.Pool(2) as pool:
            return pool.map(point, range(count))

    def in_an_executor(count):
        with concurrent.futures.ProcessPoolExecutor(2) as executor:
            return list(executor.map(point, range(count)))

    def in_spawned_processes(count):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(point, range(count))

    def saved(count):
        return pickle.dumps([point(x) for x in range(count)])

    def saved_and_read(count):
        return pickle.loads(saved(count))

    if __name__ == "__main__":
        with Server(num_workers=1) as server, server.client() as client:
            for isolation in "task", "worker":
                options = client.options(isolation=isolation)
                for function in (in_a_pool, in_an_executor, saved_and_read, in_a_pool):
                    points = options.run(function, 4)
                    assert [(type(one), one.x) for one in points] == [(Point, x * x) for x in range(4)], function
                assert [one.x for one in pickle.loads(options.run(saved, 3))] == [0, 1, 4]
                try:
                    options.run(in_spawned_processes, 1)
                except pickle.PicklingError as error:
                    assert "point" in str(error)
                else:
                    raise AssertionError("no error")
        print("done")
"""


def test_what_is_of_a_script_is_found_by_its_name_in_pools_and_pickles_of_its_tasks(tmp_path: Path) -> None:
    assert run_script(tmp_path, MAIN_BY_NAME) == "done\n"


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    source = """
        from palpable import Server

        print("begin")
        with Server(num_workers=1) as server, server.client() as client:
            print(client.map(lambda number: number * 2, [1, 2, 3]))
    """
    assert run_script(tmp_path, source) == "begin\n[2, 4, 6]\n"


def test_modules_beside_a_script_are_found_by_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def triple(number):\n    return number * 3\n")
    source = """
        import beside
        from palpable import Server

        with Server(num_workers=1) as server, server.client() as client:
            print(client.map(beside.triple, [1, 2]))
    """
    assert run_script(tmp_path, source) == "[3, 6]\n"


def test_a_notebook_cell_run_again_is_the_function_that_runs(server: Server, client: Client) -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("N = 1\ndef f(x):\n    return x + N\n", notebook)
    assert client.run(notebook["f"], 1) == 2
    exec("N = 2\n", notebook)
    assert client.run(notebook["f"], 1) == 3
    exec("def f(x):\n    return x * 10\n", notebook)
    assert client.run(notebook["f"], 1) == 10
