"""The checker finds each fault that is planted in a history, and nothing in one without."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, TaskRow, TaskState
from stress.storm import aftermath
from stress.storm.behaviours import line_of
from stress.storm.checker import check
from stress.storm.history import Fault, History, Told
from stress.storm.stored import StoredFile, StoredTask, read_store
from support.wait import wait_until

UTC = 1_000_000.0
"""What the wall clock shows when the monotonic one is at 0."""


class Plot:
    """A history in the making: tasks that lived as they should, and then whatever a test does to them."""

    def __init__(self) -> None:
        self.history = History(utc_offset=UTC)
        self._count = 0

    def task(
        self,
        at: float = 10.0,
        *,
        outcome: str = "succeeded",
        call: str = "submit",
        kind: str = "quick",
        key: str = "",
        priority: int = 0,
        **policy: Any,
    ) -> StoredTask:
        """Add a task that was submitted at that moment, began a tenth later, ended two tenths later, and was told."""
        self._count += 1
        task_id, label, history = f"t{self._count}", f"c1-1-{self._count}", self.history
        value = {"label": label, "task_id": task_id, "attempt": 1, "pid": 100 + self._count}
        states = {"succeeded": "succeeded", "cancelled": "cancelled"}
        task = StoredTask(
            self._count,
            task_id,
            states.get(outcome, "failed"),
            outcome,
            priority=priority,
            submitted_at=UTC + at,
            started_at=UTC + at + 0.1,
            finished_at=UTC + at + 0.2,
            policy=policy,
            value=value if outcome in ("succeeded", "error") else None,
            has_result=True,
        )
        history.file.tasks.append(task)
        history.tasks[task_id] = task
        history.asked[label] = {"at": at, "call": call, "key": key, "options": {"kind": kind}}
        history.submitted[label] = task_id
        self.start(task, 1, at + 0.1, how={"succeeded": "returned", "error": "raised"}.get(outcome, ""), kind=kind)
        self.tell(task, at + 0.3, outcome)
        return task

    def start(self, task: StoredTask, attempt: int, at: float, *, how: str = "", **facts: Any) -> None:
        """Note the start of an attempt, and its end, if it is said how."""
        event = {"label": self.label(task), "task_id": task.task_id, "attempt": attempt}
        note = {**event, "at": at, "is_alone": True, "kind": "quick", **facts}
        self.history.started[task.task_id].append(note)
        if how:
            self.history.ended[task.task_id].append({**event, "at": at + 0.1, "how": how})

    def tell(self, task: StoredTask, at: float, answer: str, **facts: Any) -> None:
        """Note an answer to a question that was asked just before."""
        value = facts.get("value", task.value if answer in ("succeeded", "error") else None)
        told = Told(self.label(task), task.task_id, "future", at - 0.01, at, answer, value)
        self.history.told.append(told)

    def strike(self, name: str, at: float, **facts: Any) -> None:
        """Note a fault."""
        self.history.faults.append(Fault(name, at, at + 0.05, {"pids": [1], **facts}))

    def cancel(self, task: StoredTask, at: float, *, is_cancelled: bool) -> None:
        """Note what a cancel said."""
        event = {"label": self.label(task), "task_id": task.task_id, "at": at, "since": at - 0.01}
        self.history.cancels.append({"event": "cancels", **event})
        self.history.cancels.append({"event": "cancelled", "is_cancelled": is_cancelled, **event})

    def fail_map(self, answer: str) -> None:
        """Note that a map failed, of a client that connects again."""
        event = {"labels": ["c1-1-1"], "answer": answer, "reconnects": True, "by": "map", "value": ""}
        self.history.failed_maps.append({"since": 10.0, "at": 11.0, **event})

    def purge(self, at: float, *states: str, older_than: float) -> None:
        """Note a purge that was answered at once."""
        facts = {"at": at, "states": states, "older_than_seconds": older_than, "count": 1, "ended": at + 0.01}
        self.history.purges[f"p{at}"] = facts

    def remove(self, task: StoredTask) -> None:
        """Take a task out of the store."""
        self.history.file.tasks.remove(task)
        del self.history.tasks[task.task_id]

    def retry(self, task: StoredTask, new_task_id: str | None) -> None:
        """Note a retry that was answered at once."""
        event = {"label": self.label(task), "task_id": task.task_id, "at": 10.4, "ended": 10.41}
        self.history.retries.append({**event, "new_task_id": new_task_id, "why": ""})

    def follow(self, task: StoredTask, text: str) -> None:
        """Note what somebody saw who followed a task to its end."""
        event = {"label": self.label(task), "task_id": task.task_id, "since": 10.0, "at": 10.4, "text": text}
        self.history.followed.append(event)

    @staticmethod
    def label(task: StoredTask) -> str:
        return f"c1-1-{task.sequence}"

    def rules(self) -> set[str]:
        """Return the rules that the checker finds broken."""
        return {finding.rule for finding in check(self.history)}


@pytest.fixture
def plot() -> Plot:
    return Plot()


# --- nothing is wrong ---------------------------------------------------------------------------------------------


def test_nothing_is_found_in_a_history_without_faults(plot: Plot) -> None:
    plot.task()
    plot.task(11.0, outcome="error")
    taken = plot.task(12.0)
    taken.is_taken, taken.value = True, None
    plot.tell(taken, 12.9, "unknown")
    cancelled = plot.task(13.0, outcome="cancelled")
    plot.cancel(cancelled, 13.25, is_cancelled=True)
    assert check(plot.history) == []


def test_an_attempt_after_the_end_of_a_server_is_as_it_should_be(plot: Plot) -> None:
    task = plot.task()
    _run_twice(plot, task)
    plot.strike("kill server", 10.12)
    assert check(plot.history) == []


def test_a_map_that_fails_when_a_process_is_killed_is_as_it_should_be(plot: Plot) -> None:
    plot.strike("kill task process", 10.5)
    plot.fail_map("crashed")
    assert check(plot.history) == []


def _run_twice(plot: Plot, task: StoredTask) -> None:
    """The first attempt began and did not end; the second one is the one that was told."""
    plot.history.ended.clear()
    task.attempt = 2
    plot.start(task, 2, 10.15, how="returned")


def test_an_attempt_that_was_killed_before_it_began_is_as_it_should_be(plot: Plot) -> None:
    task = plot.task()
    task.attempt = 2
    plot.history.started.clear()
    plot.start(task, 2, 10.15, how="returned")
    plot.strike("kill server", 10.05)
    assert check(plot.history) == []


def test_what_was_purged_may_be_gone(plot: Plot) -> None:
    for task in (plot.task(), plot.task(outcome="cancelled"), plot.task(key="k")):
        plot.cancel(task, 10.25, is_cancelled=task.outcome == "cancelled")
        plot.remove(task)
        plot.tell(task, 21.5, "unknown")
    plot.purge(21.0, "succeeded", "cancelled", older_than=10.0)
    assert check(plot.history) == []


def test_a_task_that_failed_and_is_run_again_as_another_is_as_it_should_be(plot: Plot) -> None:
    old, new = plot.task(outcome="error"), plot.task(10.5, outcome="error")
    plot.history.started[new.task_id][0]["label"] = plot.label(old)
    plot.retry(old, new.task_id)
    assert check(plot.history) == []


def test_a_log_that_was_followed_to_the_end_is_as_it_should_be(plot: Plot) -> None:
    task = plot.task()
    _print(plot, task)
    plot.follow(task, f"{line_of(task.value)}\n")
    assert check(plot.history) == []


# --- answers ------------------------------------------------------------------------------------------------------


def _lose(plot: Plot) -> None:
    task = plot.task()
    plot.history.file.tasks.remove(task)
    del plot.history.tasks[task.task_id]


def _leave_unfinished(plot: Plot) -> None:
    task = plot.task()
    task.state, task.outcome, task.finished_at = "ready", "", None
    plot.history.told.clear()
    plot.tell(task, 10.3, "unfinished")


def _tell_two_ends(plot: Plot) -> None:
    plot.tell(plot.task(), 10.5, "crashed")


def _tell_two_values(plot: Plot) -> None:
    task = plot.task()
    plot.tell(task, 10.5, "succeeded", value={**task.value, "pid": 7})


def _tell_another_end_than_is_stored(plot: Plot) -> None:
    task = plot.task()
    task.outcome, task.state = "error", "failed"


def _tell_another_value_than_is_stored(plot: Plot) -> None:
    task = plot.task()
    task.value = {**task.value, "pid": 7}


def _take_an_end_back(plot: Plot) -> None:
    plot.tell(plot.task(), 10.5, "unfinished")


def _forget(plot: Plot) -> None:
    plot.tell(plot.task(), 10.5, "unknown")


def _refuse_and_accept(plot: Plot) -> None:
    task = plot.task()
    plot.history.told.clear()
    plot.tell(task, 10.3, "refused")


def _refuse_what_is_known(plot: Plot) -> None:
    plot.tell(plot.task(key="k"), 10.5, "refused")


def _take_without_telling(plot: Plot) -> None:
    task = plot.task()
    task.is_taken = True
    plot.history.told.clear()
    plot.tell(task, 10.05, "unfinished")


def _cancel_in_words_only(plot: Plot) -> None:
    plot.cancel(plot.task(), 10.25, is_cancelled=True)


def _run_after_a_cancel_came_too_late(plot: Plot) -> None:
    plot.cancel(plot.task(), 10.05, is_cancelled=False)


def _cancel_too_late_before_the_end(plot: Plot) -> None:
    task = plot.task()
    plot.tell(task, 10.05, "unfinished")
    plot.cancel(task, 10.12, is_cancelled=False)


def _say_nothing(plot: Plot) -> None:
    task = plot.task()
    plot.history.told.append(Told("c1-1-1", task.task_id, "future", 10.0, 100.0, "silence", None))


def _break_off_a_client_that_connects_again(plot: Plot) -> None:
    task = plot.task()
    plot.history.told.append(Told("c1-1-1", task.task_id, "future", 10.0, 10.1, "unreachable", "", True))


def _break_off_a_map(plot: Plot) -> None:
    plot.fail_map("unreachable")


def _lose_a_map(plot: Plot) -> None:
    plot.strike("kill zygote", 1.0)
    plot.fail_map("lost")


def _crash_a_map(plot: Plot) -> None:
    plot.strike("kill zygote", 1.0)
    plot.fail_map("crashed")


def _fail_a_client(plot: Plot) -> None:
    plot.history.client_failures.append("client-c1: KeyError('x')")


# --- attempts -----------------------------------------------------------------------------------------------------


def _run_what_is_not_stored(plot: Plot) -> None:
    plot.history.started["ghost"].append({**plot.history.started[plot.task().task_id][0], "task_id": "ghost"})


def _start_an_attempt_twice(plot: Plot) -> None:
    task = plot.task()
    plot.start(task, 1, 10.15)


def _run_beside(plot: Plot) -> None:
    plot.history.started[plot.task().task_id][0]["is_alone"] = False


def _run_more_than_is_recorded(plot: Plot) -> None:
    task = plot.task()
    plot.strike("kill server", 10.12)
    plot.start(task, 2, 10.15)


def _run_twice_what_may_run_once(plot: Plot) -> None:
    task = plot.task(at_most_once=True)
    _run_twice(plot, task)
    plot.strike("kill server", 10.12)


def _run_after_the_end(plot: Plot) -> None:
    task = plot.task()
    _run_twice(plot, task)
    plot.strike("kill server", 14.0)
    plot.history.started[task.task_id][1]["at"] = 15.0


def _run_again_without_a_reason(plot: Plot) -> None:
    _run_twice(plot, plot.task())


def _run_again_after_an_error_without_retries(plot: Plot) -> None:
    task = plot.task()
    _run_twice(plot, task)
    plot.history.ended[task.task_id].append({"attempt": 1, "how": "raised", "at": 10.14})


def _record_what_did_not_run(plot: Plot) -> None:
    plot.task().attempt = 2


def _retry_too_often(plot: Plot) -> None:
    plot.task(retries=1).errors = 3


def _succeed_without_returning(plot: Plot) -> None:
    plot.task()
    plot.history.ended.clear()


def _fail_without_raising(plot: Plot) -> None:
    plot.task(outcome="error")
    plot.history.ended.clear()


def _crash_for_nothing(plot: Plot) -> None:
    plot.task(outcome="crashed")


def _lose_what_could_run_again(plot: Plot) -> None:
    plot.task(outcome="lost")
    plot.strike("kill server", 10.12)


def _lose_for_nothing(plot: Plot) -> None:
    plot.task(outcome="lost", at_most_once=True)


def _cancel_unasked(plot: Plot) -> None:
    plot.task(outcome="cancelled")


def _reject(plot: Plot) -> None:
    plot.task(outcome="rejected")


def _lose_output(plot: Plot) -> None:
    plot.task(kind="printing").output = b"something else"


def _lose_a_followup(plot: Plot) -> None:
    task = plot.task()
    task.value["followups"] = ["t99"]


# --- upkeep -------------------------------------------------------------------------------------------------------


def _purge_what_is_too_young(plot: Plot) -> None:
    plot.remove(plot.task())
    plot.purge(19.0, "succeeded", older_than=10.0)


def _purge_another_state(plot: Plot) -> None:
    plot.remove(plot.task())
    plot.purge(40.0, "failed", older_than=10.0)


def _bring_back_what_was_purged(plot: Plot) -> None:
    task = plot.task()
    plot.remove(task)
    plot.purge(21.0, "succeeded", older_than=10.0)
    plot.history.told.append(Told(plot.label(task), task.task_id, "result", 22.0, 22.1, "succeeded", task.value))


def _purge_in_words_only(plot: Plot) -> None:
    plot.task()
    plot.purge(21.0, "succeeded", older_than=10.0)


def _refuse_a_retry(plot: Plot) -> None:
    plot.retry(plot.task(outcome="error"), None)


def _retry_what_succeeded(plot: Plot) -> None:
    task, new = plot.task(), plot.task(10.5)
    plot.retry(task, new.task_id)


def _lose_a_retried_task(plot: Plot) -> None:
    plot.retry(plot.task(outcome="error"), "t99")


def _run_a_task_twice_as_two(plot: Plot) -> None:
    task, double = plot.task(), plot.task(10.5)
    plot.history.started[double.task_id][0]["label"] = plot.label(task)


def _retry_twice_at_once(plot: Plot) -> None:
    task, *new = plot.task(outcome="error"), plot.task(10.5, outcome="error"), plot.task(10.6, outcome="error")
    for one in new:
        plot.history.started[one.task_id][0]["label"] = plot.label(task)
    plot.retry(task, new[0].task_id)


def _print(plot: Plot, task: StoredTask) -> None:
    plot.history.ended[task.task_id][0]["pid"] = task.value["pid"]


def _leave_a_gap_in_a_log(plot: Plot) -> None:
    task = plot.task()
    _print(plot, task)
    plot.follow(task, "")


def _say_a_line_twice(plot: Plot) -> None:
    task = plot.task()
    _print(plot, task)
    plot.follow(task, f"{line_of(task.value)}\n{line_of(task.value)}\n")


def _mix_two_logs(plot: Plot) -> None:
    task, other = plot.task(), plot.task()
    _print(plot, task)
    plot.follow(task, f"{line_of(task.value)}\n{line_of(other.value)}\n")


# --- order and the rest -------------------------------------------------------------------------------------------


def _overtake_an_older_one(plot: Plot) -> None:
    older = plot.task(10.0)
    plot.task(10.02)
    older.started_at, older.finished_at = UTC + 10.15, UTC + 10.3


def _overtake_a_dearer_one(plot: Plot) -> None:
    plot.task(10.0)
    dearer = plot.task(10.02, priority=5)
    dearer.started_at, dearer.finished_at = UTC + 10.15, UTC + 10.3


def _fail_a_start(plot: Plot) -> None:
    plot.history.failed_starts.append({"why": "the store is damaged"})


def _end_badly(plot: Plot) -> None:
    plot.strike("end server", 50.0, exit_code=1, was_killed=False)


def _leave_something(plot: Plot) -> None:
    plot.history.aftermath.append("process 7: sleep 100")


def _damage_the_store(plot: Plot) -> None:
    plot.history.file.problems.append("integrity_check: ...")


PLANTED: list[tuple[Callable[[Plot], None], str]] = [
    (_lose, "an accepted task is lost"),
    (_leave_unfinished, "an accepted task did not end"),
    (_leave_unfinished, "a stored task did not end"),
    (_tell_two_ends, "two answers differ"),
    (_tell_two_values, "two values differ"),
    (_tell_another_end_than_is_stored, "an answer differs from the store"),
    (_tell_another_value_than_is_stored, "a value differs from the store"),
    (_take_an_end_back, "an end is taken back"),
    (_forget, "a known task is forgotten"),
    (_refuse_and_accept, "a refused task was accepted"),
    (_refuse_what_is_known, "a known task is refused"),
    (_take_without_telling, "a result was taken by nobody"),
    (_cancel_in_words_only, "a cancel was said to be done, and was not"),
    (_run_after_a_cancel_came_too_late, "a task ran after its cancel came too late"),
    (_cancel_too_late_before_the_end, "a cancel said it came too late, and did not"),
    (_say_nothing, "a client was told nothing"),
    (_break_off_a_client_that_connects_again, "a client that connects again was told it could not"),
    (_break_off_a_map, "a client that connects again was told it could not"),
    (_lose_a_map, "a map failed without a reason"),
    (_crash_a_map, "a map failed without a reason"),
    (_fail_a_client, "a client met an error that no fault explains"),
    (_run_what_is_not_stored, "a task ran that is not stored"),
    (_start_an_attempt_twice, "an attempt started twice"),
    (_run_beside, "an attempt met what was left of the one before"),
    (_run_more_than_is_recorded, "an attempt ran that is not recorded"),
    (_run_twice_what_may_run_once, "an at-most-once task ran twice"),
    (_run_after_the_end, "a task ran after its end"),
    (_run_again_without_a_reason, "an attempt without a reason"),
    (_run_again_after_an_error_without_retries, "an attempt without a reason"),
    (_record_what_did_not_run, "an attempt was recorded, and did not run"),
    (_retry_too_often, "more retries than allowed"),
    (_succeed_without_returning, "a task succeeded that did not return"),
    (_fail_without_raising, "a task failed that did not raise"),
    (_crash_for_nothing, "a task crashed that nobody killed"),
    (_lose_what_could_run_again, "a task is lost that could have run again"),
    (_lose_for_nothing, "a task is lost without the end of a server"),
    (_cancel_unasked, "a task was cancelled that nobody cancelled"),
    (_reject, "a task was rejected"),
    (_lose_output, "what a task printed is lost"),
    (_lose_a_followup, "a follow-up is lost"),
    (_purge_what_is_too_young, "an accepted task is lost"),
    (_purge_another_state, "an accepted task is lost"),
    (_bring_back_what_was_purged, "a purged task is there"),
    (_purge_in_words_only, "a purged task is there"),
    (_refuse_a_retry, "a retry was refused without a reason"),
    (_retry_what_succeeded, "a task was retried that had succeeded"),
    (_lose_a_retried_task, "a retried task is lost"),
    (_run_a_task_twice_as_two, "a task ran that nobody asked for"),
    (_retry_twice_at_once, "a task ran that nobody asked for"),
    (_leave_a_gap_in_a_log, "a followed log has gaps"),
    (_say_a_line_twice, "a followed log says something twice"),
    (_mix_two_logs, "a followed log holds what another task printed"),
    (_overtake_an_older_one, "a task was overtaken"),
    (_overtake_a_dearer_one, "a task was overtaken"),
    (_fail_a_start, "a server did not start"),
    (_end_badly, "a server did not end as it was told"),
    (_leave_something, "something is left"),
    (_damage_the_store, "the store is damaged"),
]


@pytest.mark.parametrize(("plant", "rule"), PLANTED, ids=[f"{plant.__name__[1:]}-{rule}" for plant, rule in PLANTED])
def test_a_planted_fault_is_found(plot: Plot, plant: Callable[[Plot], None], rule: str) -> None:
    plant(plot)
    assert rule in plot.rules()


# --- what is looked for after the end -----------------------------------------------------------------------------


def test_a_stray_is_found_by_its_mark() -> None:
    mark = f"{aftermath.STORM_VARIABLE}=planted-{os.getpid()}"
    environment = {**os.environ, aftermath.STORM_VARIABLE: mark.partition("=")[2]}
    with subprocess.Popen(["sleep", "60"], env=environment) as stray:
        try:
            wait_until(lambda: list(aftermath._marked([mark])) == [stray.pid])
        finally:
            stray.send_signal(signal.SIGKILL)
    assert list(aftermath.find_strays([mark])) == []


def test_a_leftover_file_is_found(tmp_path: Path) -> None:
    assert list(aftermath.find_files(tmp_path, str(tmp_path / "socket"))) == []
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "z1-0.out").touch()
    assert any("z1-0.out" in what for what in aftermath.find_files(tmp_path, str(tmp_path / "socket")))


def test_descriptors_are_counted_by_kind() -> None:
    before = aftermath.descriptors_of(os.getpid())
    with open(os.devnull):
        assert (aftermath.descriptors_of(os.getpid()) - before).total() == 1


def _make_store(path: Path) -> None:
    store = SqliteStore(path)
    batch = Batch(added=[(TaskRow(1, "t1", "f", "call", "", "{}", 0, 1.0), b"request")], states=[TaskState(1, "ready")])
    store.write(batch)
    store.close()


def test_a_sound_store_has_no_problems(tmp_path: Path) -> None:
    _make_store(tmp_path / "store.db")
    found = read_store(tmp_path / "store.db")
    assert (found.problems, [task.task_id for task in found.tasks], found.boots) == ([], ["t1"], 1)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM states", "tasks without a state"),
        ("DELETE FROM tasks", "states without a task"),
        ("INSERT INTO results VALUES (9, NULL, '', 0)", "results without a task"),
        ("INSERT INTO results VALUES (1, NULL, '', 0)", "results of tasks that have not ended"),
        ("UPDATE tasks SET function_key = 'gone'", "functions that a task needs"),
    ],
)
def test_a_store_that_contradicts_itself_has_problems(tmp_path: Path, sql: str, problem: str) -> None:
    _make_store(tmp_path / "store.db")
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    connection.execute(sql)
    connection.close()
    assert any(problem in what for what in read_store(tmp_path / "store.db").problems)


def test_an_empty_history_of_an_empty_store_is_clean() -> None:
    assert check(History(file=StoredFile())) == []
