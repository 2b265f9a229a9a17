"""A stream of results: what a generator of the same items would do."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterable
from itertools import accumulate, chain
from typing import Any

import pytest

from palpable._connection.result_stream import ResultStream


class Source:
    """Yields lists, and notes how it ended."""

    def __init__(self, *batches: list[int], error: Exception | None = None) -> None:
        self.batches = batches
        self.error = error
        self.is_begun = self.is_ended = False

    def run(self) -> Generator[list[int], None, None]:
        self.is_begun = True
        try:
            yield from [list(batch) for batch in self.batches]
            if self.error is not None:
                raise self.error
        finally:
            self.is_ended = True


def test_the_items_come_one_by_one_with_next_and_in_a_loop() -> None:
    stream = ResultStream(Source([1, 2], [], [3], [4, 5, 6]).run())
    assert next(stream) == 1
    assert [next(stream), stream.send(None)] == [2, 3]
    assert list(stream) == [4, 5, 6]
    assert list(stream) == []
    with pytest.raises(StopIteration):
        next(stream)


def test_nothing_runs_before_the_first_item_is_asked_for() -> None:
    source = Source([1])
    stream = ResultStream(source.run())
    assert not source.is_begun
    stream.close()
    assert not source.is_begun and list(stream) == []


@pytest.mark.parametrize("batches", [([1, 2, 3],), ([1], [2], [3])])
def test_closing_it_in_a_loop_ends_the_loop(batches: tuple[list[int], ...]) -> None:
    source = Source(*batches)
    stream = ResultStream(source.run())
    found = []
    for item in stream:
        found.append(item)
        stream.close()
    assert found == [1] and source.is_ended
    stream.close()


def test_dropping_it_closes_its_source_at_once() -> None:
    source = Source([1, 2], [3])
    stream = ResultStream(source.run())
    next(stream)
    del stream
    assert source.is_ended


def test_a_loop_that_breaks_off_an_unnamed_stream_closes_its_source() -> None:
    source = Source([1, 2], [3])
    for _ in ResultStream(source.run()):
        break
    assert source.is_ended


def test_an_error_comes_after_the_items_before_it_and_ends_the_stream() -> None:
    stream = ResultStream(Source([1, 2], error=OSError("broken")).run())
    found: list[int] = []
    with pytest.raises(OSError, match="broken"):
        found.extend(stream)
    assert found == [1, 2] and list(stream) == []


def test_an_error_can_be_thrown_into_it() -> None:
    source = Source([1, 2], [3])
    stream = ResultStream(source.run())
    next(stream)
    with pytest.raises(OSError, match="thrown"):
        stream.throw(OSError("thrown"))
    assert source.is_ended and list(stream) == []


class Gate:
    """Yields lists; the second one when it is let go."""

    def __init__(self, *batches: list[int]) -> None:
        self.batches = batches
        self.is_waited_for, self.is_open = threading.Event(), threading.Event()

    def run(self) -> Generator[list[int], None, None]:
        first, *others = self.batches
        yield list(first)
        self.is_waited_for.set()
        assert self.is_open.wait(10)
        for batch in others:
            yield list(batch)


def collecting(items: Iterable[int], found: list[Any]) -> threading.Thread:
    def collect() -> None:
        try:
            for item in items:
                found.append(item)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    return thread


@pytest.mark.parametrize("batches", [([1, 2], [3, 4]), ([1], [2], [3], [4]), ([1, 2], [], [], [3], [4])])
@pytest.mark.parametrize("is_loop", [True, False])
def test_threads_that_ask_while_another_waits_wait_too(batches: tuple[list[int], ...], is_loop: bool) -> None:
    gate = Gate(*batches)
    stream = ResultStream(gate.run())
    items = iter(stream) if is_loop else iter(lambda: next(stream, None), None)
    found: list[list[Any]] = [[], [], []]
    threads = [collecting(items, found[0])]
    assert gate.is_waited_for.wait(10)
    threads += [collecting(items, found[1]), collecting(items, found[2])]
    threads[1].join(0.05)  # it does not end: it would, at once, if it were refused
    gate.is_open.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(found[0] + found[1] + found[2]) == [1, 2, 3, 4]
    assert list(stream) == []


def test_each_item_goes_to_one_of_many_threads() -> None:
    sizes = [1, 2, 1, 0, 1, 7, 300] * 60
    ends = list(accumulate(sizes))
    batches = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    stream = ResultStream(Source(*batches).run())
    items = iter(stream)
    found: list[list[Any]] = [[] for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [collecting(items if number % 2 else stream, found[number]) for number in range(8)]
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(chain.from_iterable(found)) == list(range(ends[-1]))


@pytest.mark.parametrize("ask", [next, lambda stream: next(iter(stream)), list, lambda stream: stream.close()])
def test_a_stream_that_asks_itself_is_refused_and_goes_on(ask: Callable[[Any], Any]) -> None:
    refused: list[ValueError] = []

    def run() -> Generator[list[int], None, None]:
        yield [1, 2]
        for _ in range(3):
            try:
                ask(stream)
            except ValueError as error:
                refused.append(error)
        yield [3]
        yield [4, 5]

    stream = ResultStream(run())
    assert list(stream) == [1, 2, 3, 4, 5]
    assert [str(error) for error in refused] == ["generator already executing"] * 3


def test_closing_it_while_a_thread_waits_is_refused() -> None:
    gate = Gate([1, 2], [3])
    stream = ResultStream(gate.run())
    found: list[Any] = []
    thread = collecting(stream, found)
    assert gate.is_waited_for.wait(10)
    for end in (stream.close, lambda: stream.throw(OSError())):
        with pytest.raises(ValueError, match="already executing"):
            end()
    gate.is_open.set()
    thread.join(10)
    assert found == [1, 2, 3]


def test_an_error_is_raised_in_one_thread_and_the_others_come_to_the_end() -> None:
    gate = Gate([1])

    def run() -> Generator[list[int], None, None]:
        yield from gate.run()
        raise OSError("broken")

    items = iter(ResultStream(run()))
    found: list[list[Any]] = [[], []]
    threads = [collecting(items, found[0])]
    assert gate.is_waited_for.wait(10)
    threads.append(collecting(items, found[1]))
    gate.is_open.set()
    for thread in threads:
        thread.join(10)
    assert [str(one) for one in found[0]] == ["1", "broken"] and found[1] == []
