"""`imap` and `imap_unordered` on real processes: lazy, bounded, early, and nothing lost before an error."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, Server
from palpable.units.task_exceptions import NotPicklable, TaskCrashed
from support import tasks
from support.wait import wait_until

ENOUGH = 20_000


@pytest.fixture
def warm(client: Client) -> Client:
    """A client whose tasks share processes, on two workers."""
    return client.options(isolation="worker")


def refuse(forbidden: int) -> Callable[[int], int]:
    def checked(number: int) -> int:
        if number == forbidden:
            raise tasks.OddNumber(number)
        return number

    return checked


@pytest.mark.parametrize("chunksize", [1, 7, 100, "auto"])
def test_everything_before_an_error_is_yielded_also_from_its_own_chunk(warm: Client, chunksize: Any) -> None:
    found: list[int] = []
    with pytest.raises(tasks.OddNumber) as caught:
        found.extend(warm.imap(refuse(537), itertools.count(), chunksize=chunksize))
    assert found == list(range(537))
    assert caught.value.number == 537


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_chunk_in_a_process_of_its_own_loses_nothing_either(client: Client, isolation: Any) -> None:
    found: list[int] = []
    with pytest.raises(tasks.OddNumber):
        found.extend(client.options(isolation=isolation).imap(refuse(57), range(100), chunksize=25))
    assert found == list(range(57))


def test_without_order_the_results_of_the_failing_chunk_come_too(warm: Client) -> None:
    found: list[int] = []
    with pytest.raises(tasks.OddNumber):
        found.extend(warm.imap_unordered(refuse(8), range(10), chunksize=10))
    assert found == list(range(8))


def test_an_error_ends_a_map_and_is_raised_as_itself(warm: Client) -> None:
    with pytest.raises(tasks.OddNumber) as caught:
        warm.map(refuse(57), range(100), chunksize=50)
    assert caught.value.number == 57
    assert "checked" in str(caught.value.__cause__)


def test_results_before_one_that_can_not_be_pickled_are_yielded(warm: Client) -> None:
    def lock_at_five(number: int) -> Any:
        return threading.Lock() if number == 5 else number

    found: list[Any] = []
    with pytest.raises(NotPicklable):
        found.extend(warm.imap(lock_at_five, range(10), chunksize=10))
    assert found == list(range(5))


def test_a_function_that_raises_stop_iteration_ends_nothing_quietly(warm: Client) -> None:
    def stop_at_three(number: int) -> int:
        if number == 3:
            raise StopIteration
        return number

    found: list[int] = []
    with pytest.raises(RuntimeError, match="StopIteration for param 3"):
        found.extend(warm.imap(stop_at_three, range(10), chunksize=10))
    assert found == [0, 1, 2]


def test_a_process_that_dies_takes_its_chunk_along_and_nothing_before_it(warm: Client) -> None:
    def die_at(number: int) -> int:
        if number == 15:
            import os

            os._exit(3)
        return number

    found: list[int] = []
    with pytest.raises(TaskCrashed):
        found.extend(warm.imap(die_at, range(100), chunksize=10))
    assert found == list(range(10))


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_params_that_raise_come_after_all_that_was_read_before(warm: Client, call: str) -> None:
    def params() -> Iterator[int]:
        yield from range(1000)
        raise OSError("the source broke")

    found: list[int] = []
    with pytest.raises(OSError, match="the source broke"):
        found.extend(getattr(warm, call)(tasks.double, params()))
    assert sorted(found) == [number * 2 for number in range(1000)]


@pytest.mark.parametrize(("isolation", "window"), [("task", 10), ("worker", 100), ("worker", 1000)])
def test_closing_it_cancels_the_rest(client: Client, tmp_path: Path, isolation: Any, window: int) -> None:
    read = itertools.count()
    endless = (next(read) for _ in itertools.repeat(None))

    def note(number: int) -> int:
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{number}\n")
        return number

    results = client.options(isolation=isolation).imap(note, endless, window=window)
    assert [next(results) for _ in range(30)] == list(range(30))
    results.close()
    wait_until(lambda: not client.tasks(["ready", "running"]))
    begun = len((tmp_path / "begun").read_text().splitlines())
    assert begun <= next(read) <= 30 + window + 1


def test_the_window_is_kept_while_the_first_result_is_slow(client: Client, warm: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    read = itertools.count()
    endless = (next(read) for _ in itertools.repeat(None))

    def wait_at_zero(number: int) -> int:
        while number == 0 and not gate.exists():
            threading.Event().wait(0.01)
        return number

    results = warm.imap(wait_at_zero, endless, window=200, chunksize=1)
    reader = threading.Thread(target=lambda: [next(results) for _ in range(400)])
    reader.start()
    # One worker is stuck at the head; the other does all the rest of the window.
    wait_until(lambda: len(client.tasks("succeeded")) == 199)
    gate.touch()
    reader.join(30)
    assert not reader.is_alive()
    assert next(read) <= 400 + 200 + 1
    results.close()


def test_the_window_is_kept_in_chunks_that_grow_while_the_first_is_slow(
    client: Client, warm: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    found: list[int] = []

    def wait_at_zero(number: int) -> int:
        while number == 0 and not gate.exists():
            threading.Event().wait(0.01)
        return number

    results = warm.imap(wait_at_zero, range(2000), window=500)
    reader = threading.Thread(target=lambda: found.extend(results))
    reader.start()
    wait_until(lambda: len(client.tasks("succeeded")) > 100)
    gate.touch()
    reader.join(30)
    assert found == list(range(2000))


def test_early_results_come_before_the_source_has_more(warm: Client) -> None:
    taken = threading.Event()

    def params() -> Iterator[int]:
        yield 1
        assert taken.wait(30), "the first result was not yielded before the second param was read"
        yield 2

    results = warm.imap(tasks.double, params(), window=1, chunksize=1)
    assert next(results) == 2
    taken.set()
    assert list(results) == [4]


@pytest.mark.slow
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_memory_stays_flat_over_a_long_stream(tmp_path: Path, call: str) -> None:
    import psutil

    with Server(num_workers=2, isolation="worker", result_retention_capacity=1000) as server, server.client() as client:
        ours, theirs = psutil.Process(), psutil.Process(server.pid)
        results = getattr(client, call)(tasks.double, itertools.count(), window=1000)
        for _ in range(100_000):  # all buffers have their size, and the server keeps what it keeps
            next(results)
        before = ours.memory_info().rss, theirs.memory_info().rss
        for _ in range(400_000):
            next(results)
        grown = ours.memory_info().rss - before[0], theirs.memory_info().rss - before[1]
        results.close()
    assert max(grown) < 8 << 20


def test_a_result_that_is_out_with_the_caller_is_held_by_nobody_else(client: Client) -> None:
    import gc
    import sys

    results = client.imap(lambda number: bytearray(number), itertools.count(1000))
    for _ in range(5):
        value = next(results)
        gc.collect()
        assert sys.getrefcount(value) == 2
    results.close()
