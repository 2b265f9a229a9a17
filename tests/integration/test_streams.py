"""`imap` and `imap_unordered` on real processes: lazy, bounded, early, and nothing lost before an error."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable import AsyncClient, Client, Server, current_task
from palpable._connection.window import CHUNK_MAX, CHUNK_SECONDS
from palpable.units.task_exceptions import NotPicklable, PayloadTooLarge, TaskCrashed
from support import tasks
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


def sleep_a_chunk(number: int) -> int:
    """Take as long as a chunk should."""
    threading.Event().wait(CHUNK_SECONDS)
    return number


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


@pytest.mark.parametrize("progress", [True, False])
def test_a_range_beyond_counting_is_as_good_as_an_endless_source(warm: Client, progress: bool) -> None:
    values = warm.imap(tasks.double, range(2**70), progress=progress)
    assert list(itertools.islice(values, 5)) == [0, 2, 4, 6, 8]
    values.close()


@pytest.mark.parametrize("is_plain", [True, False], ids=["function", "object"])
def test_a_function_that_raises_stop_iteration_ends_nothing_quietly(warm: Client, is_plain: bool) -> None:
    def stop_at_three(number: int) -> int:
        if number == 3:
            raise StopIteration
        return number

    found: list[int] = []
    with pytest.raises(RuntimeError, match="StopIteration for param 3"):
        called = stop_at_three if is_plain else functools.partial(stop_at_three)
        found.extend(warm.imap(called, range(10), chunksize=10))
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


@pytest.mark.parametrize(
    ("isolation", "window", "chunksize", "most_ahead"),
    [
        ("task", 10, "auto", 10),
        ("worker", 100, 1, 100),
        ("worker", 4, 20, 80),
        ("worker", 1000, "auto", 8 * 16),  # no more tasks than two workers need; after 30 results none is larger
    ],
)
def test_closing_it_cancels_the_rest(
    client: Client, tmp_path: Path, isolation: Any, window: int, chunksize: Any, most_ahead: int
) -> None:
    read = itertools.count()
    endless = (next(read) for _ in itertools.repeat(None))

    def note(number: int) -> int:
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{number}\n")
        return number

    results = client.options(isolation=isolation).imap(note, endless, window=window, chunksize=chunksize)
    assert [next(results) for _ in range(30)] == list(range(30))
    results.close()
    wait_until(lambda: not client.tasks(["ready", "running"]))
    begun = len((tmp_path / "begun").read_text().splitlines())
    assert begun <= next(read) <= 30 + most_ahead


@pytest.mark.own_server
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


def test_while_the_first_result_is_slow_workers_go_on_to_the_end_of_the_window_and_no_further(
    client: Client, warm: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    found: list[int] = []
    read: list[int] = []

    def params() -> Iterator[int]:
        for number in range(5000):
            read.append(number)
            yield number

    def wait_at_zero(number: int) -> int:
        while number == 0 and not gate.exists():
            threading.Event().wait(0.01)
        return number

    results = warm.imap(wait_at_zero, params(), window=300)
    reader = threading.Thread(target=lambda: found.extend(results))
    reader.start()
    # Sent by twos, and the first one is not done; chunks stay at one param, since none was taken.
    wait_until(lambda: len(client.tasks("succeeded")) >= 298)
    assert len(read) <= 300
    gate.touch()
    reader.join(30)
    assert found == list(range(5000))


class Source:
    """Numbers without end; `most_ahead` is how many were read and not yielded, at most."""

    def __init__(self) -> None:
        self.yielded = self.most_ahead = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.most_ahead = max(self.most_ahead, number + 1 - self.yielded)
            yield number


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
@pytest.mark.parametrize("window", [1, 2, 10, 1000])
def test_a_slow_function_is_not_read_far_ahead(warm: Client, call: str, window: int) -> None:
    source = Source()
    results = getattr(warm, call)(sleep_a_chunk, source, window=window)
    for source.yielded in range(12):
        next(results)
    results.close()
    # For the one in order, the other worker may go on while the first is late.
    assert source.most_ahead <= (min(window, 8) if call == "imap_unordered" else window)


@pytest.mark.parametrize(
    ("call", "window", "most_tasks"), [("imap", 1, 1), ("imap", 4, 4), ("imap_unordered", 1000, 8)]
)
def test_a_quick_function_is_read_ahead_by_whole_chunks_and_no_more_than_the_window(
    warm: Client, call: str, window: int, most_tasks: int
) -> None:
    source = Source()
    results = getattr(warm, call)(tasks.double, source, window=window)
    for source.yielded in range(50_000):
        next(results)
    results.close()
    assert 50 < source.most_ahead <= most_tasks * CHUNK_MAX


@pytest.mark.parametrize("is_async", [False, True], ids=["iterable", "async iterable"])
@pytest.mark.parametrize(
    ("window", "chunksize", "most_ahead"), [(1, 50, 50), (20, 1, 20), (3, 7, 21), (1, "auto", CHUNK_MAX)]
)
def test_an_asynchronous_map_reads_no_further_ahead_than_its_window(
    server: Server, is_async: bool, window: int, chunksize: Any, most_ahead: int
) -> None:
    async def main() -> int:
        source = Source()

        async def awaited() -> AsyncIterator[int]:
            for number in source:
                yield number

        async with AsyncClient(server.address, server.family, server.authkey, isolation="worker") as client:
            params = awaited() if is_async else source
            results = client.imap(tasks.double, params, window=window, chunksize=chunksize)
            for source.yielded in range(3000):
                assert await anext(results) == source.yielded * 2
            await results.aclose()
        return source.most_ahead

    # An asynchronous source is asked for one more while there is room, and that one comes when it comes.
    assert asyncio.run(main()) <= most_ahead + is_async


def test_a_task_may_say_how_far_its_own_map_reads_ahead(warm: Client) -> None:
    def stream(count: int) -> tuple[int, int]:
        read = yielded = most_ahead = total = 0

        def params() -> Iterator[int]:
            nonlocal read, most_ahead
            for number in range(count):
                read += 1
                most_ahead = max(most_ahead, read - yielded)
                yield number

        for value in current_task().imap(abs, params(), window=4, chunksize=5):
            yielded += 1
            total += value
        return total, most_ahead

    assert warm.run(stream, 200) == (sum(range(200)), 20)


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


@pytest.mark.slow
def test_memory_stays_flat_over_a_long_asynchronous_stream() -> None:
    import psutil

    async def main(server: Server) -> int:
        ours, theirs = psutil.Process(), psutil.Process(server.pid)
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            results = client.imap(tasks.double, itertools.count(), window=1000)
            for _ in range(100_000):
                await anext(results)
            before = ours.memory_info().rss, theirs.memory_info().rss
            for _ in range(400_000):
                await anext(results)
            grown = max(ours.memory_info().rss - before[0], theirs.memory_info().rss - before[1])
            await results.aclose()
        return grown

    with Server(num_workers=2, isolation="worker", result_retention_capacity=1000) as server:
        assert asyncio.run(main(server)) < 8 << 20


def test_a_result_that_is_out_with_the_caller_is_held_by_nobody_else(client: Client) -> None:
    import gc
    import sys

    results = client.imap(lambda number: bytearray(number), itertools.count(1000))
    for _ in range(5):
        value = next(results)
        gc.collect()
        assert sys.getrefcount(value) == 2
    results.close()


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_task_that_leaves_a_stream_of_large_results_ends(tmp_path: Path, isolation: str) -> None:
    """What it says at its end is heard, although it reads no more of what it was sent."""
    with Server(tmp_path / "logs", num_workers=3, isolation=isolation) as server, server.client() as client:  # type: ignore[arg-type]
        for _ in range(3):
            assert client.submit(tasks.take_the_first, 6).result(20) == 20_000_000


def test_leaving_a_stream_cancels_the_rest_although_large_results_are_unread(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "logs", num_workers=6) as server,
        server.client() as client,
        server.client() as other,
    ):
        results = client.imap(tasks.large_or_long, range(6), window=6)
        assert len(next(results)) == 20_000_000
        results.close()
        wait_until(lambda: not other.tasks(state="running"))


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_threads_may_share_a_stream(client: Client, call: str, isolation: Any) -> None:
    results = getattr(client.options(isolation=isolation), call)(tasks.double, range(60))
    found: list[list[Any]] = [[], [], []]
    threads = [threading.Thread(target=lambda part=part: part.extend(results)) for part in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(itertools.chain.from_iterable(found)) == list(range(0, 120, 2))


@pytest.mark.parametrize("progress", [True, False])
def test_a_source_that_asks_for_a_result_of_its_own_stream_is_refused(client: Client, progress: bool) -> None:
    def params() -> Iterator[int]:
        yield 1
        yield next(results)
        yield 3

    results = client.imap(tasks.double, params(), window=4, progress=progress)
    found: list[int] = []
    with pytest.raises(ValueError, match="generator already executing"):
        found.extend(results)
    assert found == [2]


def test_an_asynchronous_source_that_asks_for_a_result_of_its_own_stream_is_refused(server: Server) -> None:
    async def main() -> list[int]:
        async def params() -> AsyncIterator[int]:
            yield 1
            yield await anext(results)
            yield 3

        async with AsyncClient(server.address, server.family, server.authkey) as client:
            results = client.imap(tasks.double, params(), window=4)
            found: list[int] = []
            with pytest.raises(RuntimeError, match="already running"):
                async for result in results:
                    found.append(result)
            return found

    assert asyncio.run(main()) == [2]


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
@pytest.mark.parametrize(("isolation", "chunksize"), [("task", "auto"), ("worker", "auto"), ("worker", 3)])
def test_a_param_that_can_not_be_pickled_is_an_error_of_the_source_in_its_place(
    client: Client, call: str, isolation: Any, chunksize: Any
) -> None:
    found: list[int] = []
    with pytest.raises(NotPicklable, match=r"params\[4\] \(a _thread.lock\)"):
        results = getattr(client.options(isolation=isolation), call)(
            tasks.double, [0, 1, 2, 3, threading.Lock(), 5], chunksize=chunksize
        )
        found.extend(results)
    assert sorted(found) == [0, 2, 4, 6]


def test_a_param_that_is_too_large_is_an_error_of_the_source_in_its_place(client: Client) -> None:
    found: list[int] = []
    limit = client._get_connection()._max_task_bytes
    with pytest.raises(PayloadTooLarge):
        found.extend(client.imap(len, [b"1", b"12", bytes(limit), b"1"]))
    assert found == [1, 2]


@pytest.mark.parametrize(("isolation", "chunksize"), [("task", "auto"), ("worker", 3)])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_param_that_can_not_be_sent_ends_an_asynchronous_stream_in_its_place(
    server: Server, isolation: Any, chunksize: Any, is_async: bool
) -> None:
    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey, isolation=isolation) as client:
            limit = (await client._get_connection())._max_task_bytes
            for bad, error in ((threading.Lock(), NotPicklable), (bytes(limit), PayloadTooLarge)):
                params = [b"", b"1", b"12", bad, b"123"]

                async def source(params: list[Any] = params) -> AsyncIterator[Any]:
                    for param in params:
                        yield param

                found: list[int] = []
                with pytest.raises(error):
                    async for value in client.imap(len, source() if is_async else params, chunksize=chunksize):
                        found.append(value)
                assert found == [0, 1, 2]

    asyncio.run(main())


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_map_says_which_of_its_params_can_not_be_pickled(server: Server, client: Client, isolation: Any) -> None:
    params = [*range(30), threading.Lock(), 31]
    with pytest.raises(NotPicklable, match=r"params\[30\] \(a _thread.lock\)"):
        client.options(isolation=isolation).map(tasks.double, params)

    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey, isolation=isolation) as client:
            with pytest.raises(NotPicklable, match=r"params\[30\] \(a _thread.lock\)"):
                await client.map(tasks.double, params)

    asyncio.run(main())


def test_an_asynchronous_map_takes_an_asynchronous_source(server: Server) -> None:
    async def main() -> list[int]:
        async def params() -> AsyncIterator[int]:
            for number in range(5):
                await asyncio.sleep(0)
                yield number

        async with AsyncClient(server.address, server.family, server.authkey) as client:
            return await client.map(tasks.double, params())

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]


class Count:
    """A whole number of somebody else's, such as one of numpy."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_whole_numbers_may_be_of_any_kind(server: Server, client: Client) -> None:
    two: Any = Count(2)
    view = client.options(priority=two, retries=two, isolation="worker")
    assert list(view.imap(tasks.double, range(5), window=two, chunksize=two)) == [0, 2, 4, 6, 8]
    assert view.map(tasks.double, range(5), chunksize=two) == [0, 2, 4, 6, 8]
    assert len(client.tasks(limit=two)) == 2

    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey, priority=two) as other:
            assert await other.map(tasks.double, range(5), chunksize=two) == [0, 2, 4, 6, 8]
            assert len(await other.tasks(limit=two)) == 2
            results = other.imap(tasks.double, range(3), window=two, chunksize=two)
            assert [value async for value in results] == [0, 2, 4]

    asyncio.run(main())
