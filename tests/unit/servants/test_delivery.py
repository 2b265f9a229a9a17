"""In which order results are pushed."""

from __future__ import annotations

from typing import Any

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._wire.messages import ResultsPushed, TaskEnded, TaskReturned
from palpable._wire.returns import number_of
from palpable.servants.delivery import Delivery


class Reader:
    """A peer that reads all it is sent."""

    connection_id = 1
    inside_task = ""
    is_writable = True

    def __init__(self) -> None:
        self.heard: list[ResultsPushed] = []

    def send(self, message: Any) -> None:
        self.heard.append(message)

    def owe(self, count: int) -> None:
        raise AssertionError("nothing here waits for the disk")


def ended(task_id: str, *, is_large: bool) -> TaskRecord:
    """A task that has succeeded; its process said so by its socket if the result is large, else by the returns pipe."""
    ending: Any = (
        TaskEnded(task_id=task_id, is_successful=True, payload=b"large")
        if is_large
        else TaskReturned(task_id, b"small", 0.0, 0.0, 0, 0, 0, number_of(0))
    )
    return TaskRecord(
        task_id, None, "f", "key", TaskPolicy(), "worker", 1, 0.0,
        state=State.SUCCEEDED, outcome=Outcome.SUCCEEDED, attempt=1, ending=ending, is_settled=True,
        started_at=0.0, finished_at=0.0,
    )  # fmt: skip


def pushed(kinds: str) -> list[ResultsPushed]:
    """Return what is pushed of tasks that end in that order, each of them large (L) or small (s)."""
    records = {str(number): ended(str(number), is_large=kind == "L") for number, kind in enumerate(kinds)}
    outputs: Any = None
    peer = Reader()
    delivery = Delivery(records, outputs, lambda ids: None, lambda *_: None)
    delivery.push_to(peer, list(records), needs_exit=False)
    delivery.on_finished(records.values())
    delivery.flush()
    return peer.heard


def in_the_order_a_client_takes_them(messages: list[ResultsPushed]) -> list[str]:
    return [report.task_id for message in messages for report in [*message.returned, *message.reports]]


def test_results_come_in_the_order_in_which_their_tasks_ended() -> None:
    for kinds in ("ssss", "LLL", "ssLLss", "LsLsLs", "sLsLLs"):
        messages = pushed(kinds)
        assert in_the_order_a_client_takes_them(messages) == [str(number) for number in range(len(kinds))]
        assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))


def test_what_is_in_order_travels_in_one_message() -> None:
    assert len(pushed("ssssLLL")) == 1
    assert len(pushed("LLLssss")) == 2
