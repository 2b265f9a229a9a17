"""What a chunk gives back when one of its calls raises."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from palpable._wire.chunk_failure import dumps_chunk_failure, error_in, results_before
from palpable._wire.messages import TaskReport
from palpable._wire.payload import dumps_exception, exception_of


def report(payload: bytes | None, outcome: str = "error") -> TaskReport:
    return TaskReport("task", "failed", outcome, payload, "ValueError", "no", "")


def test_both_the_results_and_the_error_come_back() -> None:
    payload = dumps_chunk_failure([1, "two", [3]], dumps_exception(ValueError("no")).payload)
    assert results_before(report(payload)) == [1, "two", [3]]
    error = exception_of(report(payload))
    assert type(error) is ValueError and str(error) == "no"


def test_an_error_that_can_not_be_pickled_does_not_hold_back_the_results() -> None:
    payload = dumps_chunk_failure([1], None)
    assert results_before(report(payload)) == [1]
    assert payload is not None and error_in(payload) is None
    assert "no" in str(exception_of(report(payload)))


@pytest.mark.parametrize("payload", [None, dumps_exception(ValueError("no")).payload])
def test_a_failure_without_results_is_that_of_any_task(payload: bytes | None) -> None:
    assert dumps_chunk_failure([], payload) == payload
    assert results_before(report(payload)) == []


@pytest.mark.parametrize("unfit", [0, 1, 4])
def test_results_are_sent_up_to_the_first_that_can_not_be_pickled(unfit: int) -> None:
    results: list[Any] = list(range(5))
    results[unfit] = threading.Lock()
    assert results_before(report(dumps_chunk_failure(results, b""))) == list(range(unfit))


class Unloadable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_results_that_can_not_be_unpickled_leave_the_error_alone() -> None:
    payload = dumps_chunk_failure([Unloadable()], dumps_exception(ValueError("no")).payload)
    assert results_before(report(payload)) == []
    assert type(exception_of(report(payload))) is ValueError


def test_a_successful_result_that_begins_with_the_mark_is_no_failure() -> None:
    assert results_before(report(b"\x02whatever", "succeeded")) == []
