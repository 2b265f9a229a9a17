"""What waits for the disk, and what can still be refused."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from palpable._core import effects as effect
from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable.servants.order_queue import Accept, OrderQueue


class Peer:
    connection_id, inside_task, is_writable = 1, "", True

    def send(self, message: Any) -> None:
        raise AssertionError("nothing is on disk")

    def owe(self, count: int) -> None: ...


class Disk:
    """A journal that writes nothing."""

    committed, ticket = 0, 1

    def mark(self, task: TaskRecord, *, is_new: bool = False) -> None: ...
    def forget(self, task: TaskRecord) -> None: ...


def _queue_on_a_full_disk() -> OrderQueue:
    def carry_out(order: effect.Effect) -> None:
        raise AssertionError("nothing is on disk")

    queue = OrderQueue(defaultdict(lambda: carry_out), lambda: None)
    queue.journal = Disk()
    return queue


def test_an_acceptance_can_become_a_refusal() -> None:
    queue = _queue_on_a_full_disk()
    queue.enter([], first=Accept(Peer(), 1, ["a", "b"], []))
    assert [order.request_id for order in queue.take_refusable(lambda task_id: True)] == [1]
    assert queue.take_refusable(lambda task_id: True) == []


def test_what_somebody_else_has_submitted_too_is_not_refused() -> None:
    queue = _queue_on_a_full_disk()
    queue.enter([], first=Accept(Peer(), 1, ["a"], []))
    queue.enter([], first=Accept(Peer(), 2, [], ["a"]))
    queue.enter([], first=Accept(Peer(), 3, ["b"], []))
    assert [order.request_id for order in queue.take_refusable(lambda task_id: True)] == [3]


def test_when_the_store_is_broken_runners_are_killed_and_handed_nothing_more() -> None:
    done: list[effect.Effect] = []
    queue = OrderQueue(defaultdict(lambda: done.append), lambda: None)
    queue.journal = Disk()
    task = TaskRecord("a", None, "f", "", TaskPolicy(), "task", 1, 0.0)
    task.saved_in = 1
    handing_over, kill = effect.SendTasks(7, [task]), effect.KillRunner(7, False)
    queue.enter([handing_over, kill])
    assert not done and queue.held_tasks(7) == 1
    queue.give_up_saving()
    assert done == [kill] and queue.held_tasks(7) == 1
    queue.enter([handing_over, kill])
    assert done == [kill, kill] and queue.held_tasks(7) == 2
