"""Several who wait, over one connection, for the result of one task."""

from __future__ import annotations

from typing import Any

import pytest

from palpable import ServerUnreachable
from palpable._connection.shared_taker import SharedTaker, submit_shared
from palpable._connection.waiting import Arrival, Group, ResultTaker
from palpable._wire.messages import TaskReport

REPORT = TaskReport("t", "succeeded", "succeeded")


class Slow:
    """A taker that others wait for: it leaves the rest to the background thread."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def take(self, report: TaskReport) -> bool:
        return False

    def fail(self, error: Exception) -> bool:
        return False

    def finish(self, report: TaskReport) -> None:
        self.calls.append(report)

    def finish_failed(self, error: Exception) -> None:
        self.calls.append(error)


def arrival() -> Arrival:
    return Arrival("t", Group())


def test_the_first_submits_and_the_second_joins_it() -> None:
    takers: dict[str, ResultTaker] = {}
    submitted: list[ResultTaker] = []
    first, second = arrival(), arrival()
    submit_shared(takers, "t", first, submitted.append)
    submit_shared(takers, "t", second, submitted.append)
    assert submitted == [takers["t"]]
    assert takers["t"].take(REPORT)
    assert first.report is second.report is REPORT


def test_who_joins_after_the_result_came_has_it_at_once() -> None:
    takers: dict[str, ResultTaker] = {}
    submit_shared(takers, "t", arrival(), lambda taker: None)
    takers["t"].take(REPORT)  # and is not removed yet
    late = arrival()
    submit_shared(takers, "t", late, lambda taker: pytest.fail("it is known already"))
    assert late.report is REPORT


def test_all_fail_together_also_who_joins_then() -> None:
    shared, error = SharedTaker(first := arrival()), OSError("gone")
    assert shared.fail(error)
    shared.join(late := arrival())
    assert first.error is late.error is error


def test_what_could_not_be_submitted_fails_who_joined_meanwhile() -> None:
    takers: dict[str, ResultTaker] = {}
    second, error = arrival(), OSError("broken")

    def submit(taker: ResultTaker) -> None:
        submit_shared(takers, "t", second, lambda taker: pytest.fail("somebody does that already"))
        raise error

    with pytest.raises(OSError, match="broken"):
        submit_shared(takers, "t", arrival(), submit)
    assert second.error is error
    assert not takers


def test_an_interrupt_while_submitting_leaves_nobody_waiting() -> None:
    takers: dict[str, ResultTaker] = {}
    second = arrival()

    def submit(taker: ResultTaker) -> None:
        taker.join(second)  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_shared(takers, "t", arrival(), submit)
    assert isinstance(second.error, ServerUnreachable)
    assert not takers


def test_what_a_taker_leaves_for_later_is_done_later() -> None:
    slow = Slow()
    shared = SharedTaker(slow)
    shared.join(arrival())
    assert not shared.take(REPORT)
    shared.finish(REPORT)
    assert slow.calls == [REPORT]
    error = OSError()
    assert not SharedTaker(slow).fail(error)
    SharedTaker(slow).finish_failed(error)
    assert slow.calls == [REPORT, error]
