"""A stream of results: what a generator of the same items would do."""

from __future__ import annotations

from collections.abc import Generator

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
