"""From a report of failure to the exception that the caller sees."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from palpable._wire.failure import signal_name
from palpable._wire.messages import TaskReport
from palpable._wire.payload import dumps_exception, exception_of
from palpable.units.task_exceptions import (
    RemoteTaskError,
    RemoteTraceback,
    TaskCancelled,
    TaskCrashed,
    TaskDidNotFinish,
    TaskFailed,
    TaskKilledByQuitSignal,
    TaskLost,
    TaskRejected,
    TaskTimeout,
)


def failed(outcome: str, **facts: Any) -> Any:
    return exception_of(TaskReport("t7", "failed", outcome, **facts))


def test_a_tasks_own_exception_has_its_type_and_the_remote_traceback_as_cause() -> None:
    error = failed("error", **dumps_exception(TaskFailed("why"))._asdict())
    assert type(error) is TaskFailed and str(error) == "why"
    assert type(error.__cause__) is RemoteTraceback and "TaskFailed: why" in error.__cause__.text


@pytest.mark.parametrize("payload", [None, b"", b"garbage", b"cmodule_nowhere\nE\n.", pickle.dumps("no exception")])
def test_an_exception_that_did_not_travel_is_named(payload: bytes | None) -> None:
    error = failed("error", payload=payload, error_type="mine.E", error_message="broken", traceback="Traceback: x")
    assert type(error) is RemoteTaskError
    assert error.type_name == "mine.E" and error.message.startswith("broken") and error.task_id == "t7"
    assert error.__cause__.text == "Traceback: x"
    if payload and payload.startswith(b"c"):
        assert "module_nowhere" in str(error)


@pytest.mark.parametrize(
    "raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
def test_what_would_end_the_caller_does_not(raised: BaseException) -> None:
    error = failed("error", **dumps_exception(raised)._asdict())
    assert type(error) is RemoteTaskError and type(raised).__name__ in error.type_name


def test_an_error_without_a_message_is_told_by_its_name_alone() -> None:
    assert str(failed("error", **dumps_exception(KeyboardInterrupt())._asdict())) == "KeyboardInterrupt"


def test_a_group_of_more_than_exceptions_is_kept() -> None:
    error = failed("error", **dumps_exception(BaseExceptionGroup("g", [KeyboardInterrupt()]))._asdict())
    assert type(error) is BaseExceptionGroup


@pytest.mark.parametrize(
    ("outcome", "error_class"),
    [
        ("timeout", TaskTimeout),
        ("crashed", TaskCrashed),
        ("cancelled", TaskCancelled),
        ("quit", TaskKilledByQuitSignal),
        ("lost", TaskLost),
        ("rejected", TaskRejected),
        ("an outcome of a later version", TaskLost),
    ],
)
def test_every_end_has_its_class_and_its_facts(outcome: str, error_class: type[TaskDidNotFinish]) -> None:
    error = failed(
        outcome,
        exit_status=-15,
        elapsed_seconds=12.5,
        cpu_seconds=1.5,
        peak_memory_bytes=2_000_000_000,
        output_tail="last words\n",
    )
    assert type(error) is error_class
    assert (error.task_id, error.exit_status, error.elapsed_seconds) == ("t7", -15, 12.5)
    assert (error.cpu_seconds, error.peak_memory_bytes, error.output_tail) == (1.5, 2_000_000_000, "last words\n")
    assert "t7" in str(error)
    bare = failed(outcome)
    assert type(bare) is error_class and "None" not in str(bare)
    assert type(pickle.loads(pickle.dumps(error))) is error_class


def test_a_crash_names_signal_time_memory_likely_cause_and_last_words() -> None:
    text = str(
        failed(
            "crashed", exit_status=-9, elapsed_seconds=3.21, peak_memory_bytes=2_100_000_000, output_tail="loading\n"
        )
    )
    for part in ("SIGKILL", "3.21 s", "2.1 GB", "memory ran out", "The last lines it printed:\nloading"):
        assert part in text
    assert "native code" in str(failed("crashed", exit_status=-11))
    assert "exited with code 3" in str(failed("crashed", exit_status=3))
    assert "os._exit" in str(failed("crashed", exit_status=0))
    assert "80 MB" in str(failed("crashed", exit_status=-6, peak_memory_bytes=80_000_000))


def test_a_small_process_that_is_killed_may_have_reached_a_limit_of_its_own() -> None:
    small = str(failed("crashed", exit_status=-9, peak_memory_bytes=20_000_000))
    assert "20 MB" in small and "RLIMIT_CPU" in small and "memory ran out" in small
    for peak_memory_bytes in (None, 0, 2_000_000_000):
        assert "RLIMIT_CPU" not in str(failed("crashed", exit_status=-9, peak_memory_bytes=peak_memory_bytes))


def test_a_timeout_says_how_long_it_ran_and_what_to_do() -> None:
    text = str(failed("timeout", elapsed_seconds=10.02))
    assert "10 s" in text and "timeout_seconds" in text


def test_a_cancel_says_whether_it_had_begun() -> None:
    assert "before it ran" in str(failed("cancelled"))
    assert "after it ran 2 s" in str(failed("cancelled", elapsed_seconds=2.0, attempt=1))
    assert "an attempt before this may have run" in str(failed("cancelled", attempt=1))


def test_the_servers_words_are_passed_on() -> None:
    assert "no process could be forked" in str(failed("rejected", error_message="no process could be forked"))
    assert "zygote 2 died" in str(failed("lost", error_message="zygote 2 died"))


def test_signals_have_names() -> None:
    assert signal_name(11) == "SIGSEGV" and signal_name(9) == "SIGKILL"
    assert signal_name(250) == "signal 250"
