"""All tasks in the order in which they came."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, SupportsIndex

from palpable._core.arrivals import Arrivals


class CountingList(list[Any]):
    """Counts how often one of its items is looked at."""

    looks = 0

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        self.looks += 1
        return super().__getitem__(key)


def _filled(count: int) -> tuple[Arrivals, dict[str, Any]]:
    tasks: dict[str, Any] = {}
    arrivals = Arrivals(tasks)
    for number in range(count):
        task = tasks[str(number)] = SimpleNamespace(task_id=str(number), sequence=number)
        arrivals.add(task)
    return arrivals, tasks


def _remove(arrivals: Arrivals, tasks: dict[str, Any], number: int) -> None:
    arrivals.remove([tasks.pop(str(number))])


def _page_through(arrivals: Arrivals, size: int) -> list[int]:
    """Return the numbers of all tasks, asked for in pages."""
    found: list[int] = []
    before: int | None = None
    while True:
        page = [task.sequence for task, _ in zip(arrivals.newest_first(before), range(size), strict=False)]
        found += page
        if len(page) < size:
            return found
        before = page[-1]


def test_paging_through_all_tasks_looks_at_each_about_once() -> None:
    count, size = 100_000, 100
    arrivals, _ = _filled(count)
    arrivals._tasks = CountingList(arrivals._tasks)
    arrivals._sequences = CountingList(arrivals._sequences)
    assert _page_through(arrivals, size) == list(range(count - 1, -1, -1))
    assert arrivals._tasks.looks <= count + 2 * count // size
    assert arrivals._sequences.looks <= 20 * count // size  # to find a place


def test_tasks_that_are_gone_cost_little_and_are_not_held() -> None:
    count = 20_000
    arrivals, tasks = _filled(count)
    rng = random.Random(7)
    for number in rng.sample(range(count), count - 500):
        _remove(arrivals, tasks, number)
    left = sorted((task.sequence for task in tasks.values()), reverse=True)
    assert _page_through(arrivals, 7) == left
    assert len(arrivals._tasks) <= 2 * len(left) + 1001


def test_tasks_that_come_out_of_order_as_those_of_a_store_do_are_put_in_order() -> None:
    tasks: dict[str, Any] = {}
    arrivals = Arrivals(tasks)
    for number in [5, 1, 9, 3]:
        tasks[str(number)] = SimpleNamespace(task_id=str(number), sequence=number)
        arrivals.add(tasks[str(number)])
    _remove(arrivals, tasks, 1)
    assert _page_through(arrivals, 2) == [9, 5, 3]
    tasks["12"] = SimpleNamespace(task_id="12", sequence=12)
    arrivals.add(tasks["12"])
    assert [task.sequence for task in arrivals.newest_first(9)] == [5, 3]
    assert _page_through(arrivals, 10) == [12, 9, 5, 3]


def test_to_remove_what_is_not_there_changes_nothing() -> None:
    arrivals, tasks = _filled(3)
    task = tasks["1"]
    _remove(arrivals, tasks, 1)
    arrivals.remove([task])
    arrivals.remove([SimpleNamespace(task_id="77", sequence=77)])  # type: ignore[arg-type]
    assert _page_through(arrivals, 10) == [2, 0]


def test_tasks_that_come_together_and_go_in_any_order_are_listed_as_if_each_had_come_alone() -> None:
    rng = random.Random(5)
    tasks: dict[str, Any] = {}
    arrivals = Arrivals(tasks)
    for start in range(0, 3000, 100):
        new = [SimpleNamespace(task_id=str(number), sequence=number) for number in range(start, start + 100)]
        tasks.update((task.task_id, task) for task in new)
        arrivals.add_all(new)  # type: ignore[arg-type]
        oldest = sorted(tasks.values(), key=lambda task: task.sequence)[:40]
        for task in rng.sample(oldest, k=30):
            _remove(arrivals, tasks, task.sequence)
        assert [task.sequence for task in arrivals.newest_first()] == sorted(map(int, tasks), reverse=True)
