"""How far a lazy map reads ahead."""

from __future__ import annotations

import pytest

from palpable._connection.window import CHUNK_MAX, CHUNK_SECONDS, Window


def _fill(window: Window[int]) -> int:
    count = 0
    while window.has_room and count < 10_000:
        window.add(count, window.chunksize)
        count += 1
    return count


def test_a_window_holds_some_tasks_for_each_worker() -> None:
    window = Window[int](3, is_single=True, window=None, chunksize="auto")
    assert _fill(window) == 12


def test_a_window_of_params_counts_params() -> None:
    window = Window[int](2, is_single=False, window=100, chunksize=30)
    assert _fill(window) == 3


def test_a_chunk_larger_than_the_window_still_goes_alone() -> None:
    assert _fill(Window[int](2, is_single=False, window=10, chunksize=30)) == 1


def test_it_is_filled_again_only_when_a_quarter_is_free() -> None:
    window = Window[int](2, is_single=True, window=None, chunksize="auto")
    _fill(window)
    window.remove(0)
    assert not window.is_low and window.has_room
    window.remove(1)
    assert window.is_low


@pytest.mark.parametrize(("window", "largest"), [(None, CHUNK_MAX), (1000, 250), (4, 1)])
def test_chunks_grow_while_they_are_quick_up_to_a_limit(window: int | None, largest: int) -> None:
    ahead = Window[int](2, is_single=False, window=window, chunksize="auto")
    for _ in range(20):
        ahead.adapt(CHUNK_SECONDS / 10, ahead.chunksize)
    assert ahead.chunksize == largest
    for _ in range(20):
        ahead.adapt(CHUNK_SECONDS * 10, ahead.chunksize)
    assert ahead.chunksize == 1


def test_a_chunksize_that_was_given_stays() -> None:
    window = Window[int](2, is_single=False, window=None, chunksize=7)
    window.adapt(0.0, 7)
    assert window.chunksize == 7
