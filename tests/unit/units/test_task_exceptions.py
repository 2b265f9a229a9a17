"""The errors of Palpable: what they carry, and that all of it survives pickling."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import pickle
import threading
from typing import Any

import cloudpickle
import pytest

from palpable._wire.caller_classes import dumps_for_caller
from palpable.units import task_exceptions
from palpable.units.task_exceptions import (
    PalpableError,
    RemoteTaskError,
    RemoteTraceback,
    ServerError,
    ServerUnreachable,
    TaskDidNotFinish,
    TaskFailed,
    TaskLost,
    TaskTimeout,
    error_named,
)

ALL = [getattr(task_exceptions, name) for name in task_exceptions.__all__]
ERRORS = [error_class for error_class in ALL if issubclass(error_class, PalpableError)]

FACTS = {
    "task_id": "t1",
    "exit_status": -11,
    "elapsed_seconds": 1.5,
    "cpu_seconds": 1.25,
    "peak_memory_bytes": 10**9,
    "output_tail": "last words",
    "type_name": "m.E",
    "address": "unix:///s",
    "size_bytes": 10,
    "limit_bytes": 5,
}


def test_every_error_has_the_one_root_except_the_remote_traceback() -> None:
    assert [error_class for error_class in ALL if error_class not in ERRORS] == [RemoteTraceback]


@pytest.mark.parametrize("error_class", ALL)
def test_every_error_is_defined_in_its_module_under_its_own_name(error_class: type) -> None:
    assert error_class.__module__ == "palpable.units.task_exceptions"
    assert getattr(task_exceptions, error_class.__qualname__) is error_class
    assert error_class.__doc__


@pytest.mark.parametrize("error_class", ALL)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps, dumps_for_caller])
def test_every_error_survives_pickling_with_its_facts_cause_and_notes(error_class: Any, dumps: Any) -> None:
    error = error_class("what happened")
    for name in vars(error):
        setattr(error, name, FACTS.get(name, getattr(error, name)))
    facts = dict(vars(error))
    if error_class is not RemoteTraceback:
        error.__cause__ = RemoteTraceback("Traceback: of the task")
    error.add_note("a note")
    loaded = pickle.loads(dumps(error))
    assert type(loaded) is error_class
    assert str(loaded) == str(error) and "what happened" in str(loaded)
    assert vars(loaded) == {**facts, "__notes__": ["a note"]}
    if error_class is not RemoteTraceback:
        assert type(loaded.__cause__) is RemoteTraceback
        assert loaded.__cause__.text == "Traceback: of the task"
        assert loaded.__suppress_context__


@pytest.mark.parametrize("error_class", ERRORS)
def test_every_error_can_be_made_without_a_message(error_class: Any) -> None:
    assert str(error_class()) == ""
    assert str(pickle.loads(pickle.dumps(error_class()))) == ""


def test_a_crash_is_also_a_broken_process_pool_and_a_cancel_a_cancelled_error() -> None:
    assert issubclass(task_exceptions.TaskCrashed, concurrent.futures.process.BrokenProcessPool)
    assert issubclass(task_exceptions.TaskCancelled, concurrent.futures.CancelledError)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        raise task_exceptions.TaskCrashed("gone", exit_status=-9)


def test_other_errors_are_also_what_python_would_raise() -> None:
    assert issubclass(ServerUnreachable, ConnectionError)
    assert issubclass(task_exceptions.UnknownTask, LookupError)
    assert str(ServerUnreachable("no answer", address="tcp://h:1")) == "no answer"


def test_threads_that_ask_at_once_get_the_same_class(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[type] = []
    barrier = threading.Barrier(8)
    before = task_exceptions.TaskCrashed
    monkeypatch.delitem(vars(task_exceptions), "TaskCrashed")

    def ask() -> None:
        barrier.wait()
        found.append(task_exceptions.TaskCrashed)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    monkeypatch.setitem(vars(task_exceptions), "TaskCrashed", before)


def test_an_unknown_name_is_no_error() -> None:
    with pytest.raises(AttributeError, match="TaskExploded"):
        _ = task_exceptions.TaskExploded  # type: ignore[attr-defined]


def test_facts_default_to_not_known() -> None:
    error = TaskTimeout("late")
    assert isinstance(error, TaskDidNotFinish)
    assert (error.task_id, error.exit_status, error.elapsed_seconds, error.output_tail) == ("", None, None, "")
    assert TaskTimeout("late", 5, task_id="t").task_id == "t"


class Shortage(TaskFailed):
    """A user's own, without an `__init__`."""


@pytest.mark.parametrize("error_class", [PalpableError, TaskFailed, TaskTimeout, TaskLost, ServerError, Shortage])
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps, dumps_for_caller])
def test_an_error_takes_what_any_exception_takes(error_class: Any, dumps: Any) -> None:
    error = error_class("why", 5, {"a": 1})
    for one in (error, pickle.loads(dumps(error))):
        assert type(one) is error_class
        assert one.args == ("why", 5, {"a": 1}) and str(one) == "('why', 5, {'a': 1})"
        assert vars(one) == vars(error)
    assert error_class(5).args == (5,) and str(error_class(5)) == "5"


class Refusal(TaskFailed):
    """A user's own, with an `__init__` of its own."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


def test_a_users_subclass_with_its_own_parameters_survives_pickling() -> None:
    loaded = pickle.loads(pickle.dumps(Refusal(code=3)))
    assert type(loaded) is Refusal and loaded.code == 3 and str(loaded) == "code 3"


def test_a_remote_task_error_names_the_type_that_was_raised() -> None:
    error = RemoteTaskError("it broke", type_name="mine.Broken", task_id="t")
    assert str(error) == "mine.Broken: it broke"
    assert (error.type_name, error.message, error.task_id) == ("mine.Broken", "it broke", "t")


def test_a_remote_traceback_shows_its_text_between_quotes() -> None:
    assert str(RemoteTraceback("Traceback\n  line\n")) == '\n"""\nTraceback\n  line\n"""'


def test_a_refusal_becomes_the_error_it_names() -> None:
    assert type(error_named("TaskLost", "gone")) is TaskLost
    assert type(error_named("TaskCancelled", "stop")) is task_exceptions.TaskCancelled
    assert str(error_named("WaitCycle", "a waits for a")) == "a waits for a"
    assert type(error_named("ValueError", "too many")) is ValueError
    for name in ("Exploded", "error_named", "__doc__", "RemoteTraceback"):
        error = error_named(name, "what")
        assert type(error) is ServerError and "what" in str(error) and name in str(error)
