"""What a caller holds of a task that has ended, or not yet."""

from __future__ import annotations

import pickle

from palpable import TaskResult
from palpable._wire.messages import TaskReport
from palpable._wire.payload import dumps_exception, dumps_result
from palpable.units.task_exceptions import NotUnpicklable, TaskCrashed, TaskFailed


def test_the_originals_parameters_come_first() -> None:
    result = TaskResult("t", True, 42, ["a", "b"])
    assert (result.task_id, result.is_successful, result.data) == ("t", True, 42)
    assert result.followup_task_ids == ("a", "b")
    assert TaskResult("t", None, None).followup_task_ids == ()


def test_a_report_of_success_becomes_the_data_with_its_facts() -> None:
    report = TaskReport(
        "t",
        "succeeded",
        "succeeded",
        dumps_result({"a": 1}),
        followup_task_ids=("f",),
        attempt=2,
        elapsed_seconds=1.5,
        cpu_seconds=0.5,
        peak_memory_bytes=100,
        exit_status=0,
    )
    result = TaskResult.from_report(report)
    assert result.is_successful is True and result.data == {"a": 1}
    assert (result.attempt, result.elapsed_seconds, result.cpu_seconds) == (2, 1.5, 0.5)
    assert (result.peak_memory_bytes, result.exit_status, result.followup_task_ids) == (100, 0, ("f",))


def test_a_task_that_has_not_ended_is_neither_successful_nor_failed() -> None:
    for state in ("ready", "running"):
        result = TaskResult.from_report(TaskReport("t", state))
        assert result.is_successful is None and result.data is None and result.attempt is None


def test_a_failure_is_the_exception_instance() -> None:
    pickled = dumps_exception(TaskFailed("why"))
    result = TaskResult.from_report(TaskReport("t", "failed", "error", *pickled))
    assert result.is_successful is False
    assert type(result.data) is TaskFailed and str(result.data) == "why"
    crashed = TaskResult.from_report(TaskReport("t", "failed", "crashed", exit_status=-11))
    assert crashed.is_successful is False and type(crashed.data) is TaskCrashed


def test_data_that_cannot_be_unpickled_here_is_a_failure_that_says_so() -> None:
    report = TaskReport("t", "succeeded", "succeeded", b"cmodule_that_is_nowhere\nname\n.")
    result = TaskResult.from_report(report)
    assert result.is_successful is False
    assert type(result.data) is NotUnpicklable and "module_that_is_nowhere" in str(result.data)
    assert isinstance(result.data.__cause__, ModuleNotFoundError)


def test_a_result_survives_pickling() -> None:
    result = pickle.loads(pickle.dumps(TaskResult("t", True, 1, ("f",), exit_status=0)))
    assert vars(result) == vars(TaskResult("t", True, 1, ("f",), exit_status=0))


def test_its_repr_says_how_it_ended() -> None:
    words = [repr(TaskResult("t", is_successful, None)) for is_successful in (True, False, None)]
    assert words == ["<TaskResult t successful>", "<TaskResult t failed>", "<TaskResult t not ended>"]
