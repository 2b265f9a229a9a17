"""How far a lazy map reads ahead."""

from __future__ import annotations

import pytest

from palpable._connection.window import CHUNK_MAX, CHUNK_SECONDS, Window


def _fill(window: Window[int], arrived: int = 0, *, is_ready: bool = False) -> int:
    """Send as many tasks as may be sent; return how many."""
    first = max(window.sizes, default=-1) + 1
    task = first
    while window.room(arrived, is_ready=is_ready) > 0:
        window.add(task, window.chunksize)
        task += 1
    return task - first


def test_a_window_holds_some_tasks_for_each_worker() -> None:
    window = Window[int](3, is_single=True, window=None, chunksize="auto")
    assert _fill(window) == 12


@pytest.mark.parametrize("chunksize", [1, 7, 10_000])
def test_a_window_counts_tasks_whatever_their_size(chunksize: int) -> None:
    assert _fill(Window[int](2, is_single=False, window=100, chunksize=chunksize)) == 100


def test_a_window_of_one_has_one_chunk_under_way_or_done() -> None:
    window = Window[int](2, is_single=False, window=1, chunksize="auto")
    assert _fill(window) == 1
    assert window.room(1, is_ready=True) == 0
    window.remove(0)
    assert window.room(0, is_ready=False) == 1


def test_chunks_that_find_their_size_fill_a_large_window_no_further_than_workers_need() -> None:
    window = Window[int](2, is_single=False, window=1000, chunksize="auto")
    assert _fill(window) == 8


def test_what_is_done_counts_while_the_caller_is_slower_than_the_workers() -> None:
    window = Window[int](2, is_single=False, window=1000, chunksize="auto")
    _fill(window)
    assert _fill(window, arrived=8, is_ready=True) == 0


def test_workers_go_on_to_the_end_of_the_window_while_the_first_task_is_slow() -> None:
    window = Window[int](2, is_single=False, window=100, chunksize="auto")
    sent = _fill(window)
    while filled := _fill(window, arrived=len(window.sizes) - 1):
        sent += filled
    assert sent == len(window.sizes) == 100


def test_a_default_window_is_not_exceeded_while_the_first_task_is_slow() -> None:
    window = Window[int](2, is_single=False, window=None, chunksize="auto")
    _fill(window)
    assert _fill(window, arrived=7) == 0


@pytest.mark.parametrize("chunksize", [1, "auto"])
def test_it_is_filled_again_only_when_a_quarter_is_free(chunksize: object) -> None:
    window = Window[int](2, is_single=False, window=8, chunksize=chunksize)  # type: ignore[arg-type]
    _fill(window)
    window.remove(0)
    assert not window.is_low(window.room(0, is_ready=False))
    window.remove(1)
    assert window.is_low(window.room(0, is_ready=False))


@pytest.mark.parametrize("window", [None, 1, 4, 1000])
def test_chunks_grow_while_they_are_quick_up_to_a_limit(window: int | None) -> None:
    ahead = Window[int](2, is_single=False, window=window, chunksize="auto")
    assert ahead.chunksize == 1
    for _ in range(20):
        ahead.adapt(CHUNK_SECONDS / 10, ahead.chunksize)
    assert ahead.chunksize == CHUNK_MAX
    for _ in range(20):
        ahead.adapt(CHUNK_SECONDS * 10, ahead.chunksize)
    assert ahead.chunksize == 1


def test_chunks_of_a_slow_function_stay_at_one_param() -> None:
    window = Window[int](2, is_single=False, window=1000, chunksize="auto")
    for _ in range(20):
        window.adapt(CHUNK_SECONDS, 1)
    assert window.chunksize == 1


def test_a_chunksize_that_was_given_stays() -> None:
    window = Window[int](2, is_single=False, window=None, chunksize=7)
    window.adapt(0.0, 7)
    assert window.chunksize == 7
