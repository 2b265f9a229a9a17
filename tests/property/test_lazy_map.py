"""A lazy map, thrown at workers and callers of any speed: no more ahead than said, never stuck, the same every time."""

from __future__ import annotations

from collections import deque
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from palpable._connection.window import CHUNK_MAX, TASKS_AHEAD_PER_WORKER, Window

SECONDS = st.sampled_from([0.0, 1e-6, 1e-3, 4e-3, 0.1])
"""What a param takes."""


@given(
    workers=st.integers(1, 4),
    window=st.none() | st.integers(1, 40),
    chunksize=st.just("auto") | st.integers(1, 50),
    is_ordered=st.booleans(),
    seconds=st.lists(SECONDS, min_size=1, max_size=20),
    count=st.integers(0, 1000),
    data=st.data(),
)
def test_a_window_bounds_what_is_read_ahead_and_everything_is_yielded(
    workers: int,
    window: int | None,
    chunksize: int | Literal["auto"],
    is_ordered: bool,
    seconds: list[float],
    count: int,
    data: st.DataObject,
) -> None:
    ahead = Window[int](workers, is_single=False, window=window, chunksize=chunksize)
    limit = TASKS_AHEAD_PER_WORKER * workers if window is None else window
    read = yielded = sent = largest = 0
    arrived: dict[int, None] = {}
    under_way: deque[int] = deque()

    def first() -> int | None:
        if not is_ordered:
            return next(iter(arrived), None)
        head = next(iter(ahead.sizes), None)
        return head if head in arrived else None

    for step in range(3 * count + 3):
        # As the maps of `_connection` do; the workers' part is drawn.
        room = ahead.room(len(arrived), is_ready=first() is not None)
        if ahead.is_low(room):
            while read < count and ahead.room(len(arrived), is_ready=first() is not None) > 0:
                size = min(ahead.chunksize, count - read)
                ahead.add(sent, size)
                under_way.append(sent)
                read, sent, largest = read + size, sent + 1, max(largest, size)
        assert len(ahead.sizes) <= limit
        assert read - yielded <= limit * largest
        if chunksize == "auto":
            assert len(under_way) <= min(limit, TASKS_AHEAD_PER_WORKER * workers)
        if not ahead.sizes:
            break
        if under_way and (first() is None or data.draw(st.booleans())):
            place = data.draw(st.integers(0, min(len(under_way), workers) - 1))
            task = under_way[place]
            del under_way[place]
            arrived[task] = None
        task_taken = first()
        if task_taken is None:
            continue
        size = ahead.sizes[task_taken]
        ahead.remove(task_taken)
        del arrived[task_taken]
        ahead.adapt(seconds[step % len(seconds)] * size, size)
        assert 1 <= ahead.chunksize <= max(CHUNK_MAX, chunksize if isinstance(chunksize, int) else 1)
        yielded += size
    assert yielded == read == count
