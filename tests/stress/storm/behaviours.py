"""What tasks of the storm do.

Runs in: task processes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import palpable
from stress.storm.job import Attempt, Job

DAEMON_SECONDS = 300
"""A daemon that nobody ends ends itself after this time, so that a bug leaves no process for good."""
FLAKY_FAILURES = 2
"""So many attempts of a flaky job fail."""


class JobFailed(Exception):
    """What a job raises that is to fail: which attempt of which task it was."""

    def __init__(self, label: str, task_id: str, attempt: int, pid: int) -> None:
        super().__init__(label, task_id, attempt, pid)
        self.value = {"label": label, "task_id": task_id, "attempt": attempt, "pid": pid}


def perform(job: Job) -> dict[str, Any]:
    """Do a job; every task of the storm calls this."""
    with Attempt(job) as attempt:
        return BEHAVIOURS[job.kind](attempt)


class Perform(palpable.Procedure):
    """The same as a procedure."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def run(self, messenger: palpable.Messenger) -> dict[str, Any]:
        return perform(self.job)


def _work(attempt: Attempt) -> dict[str, Any]:
    attempt.work()
    return attempt.value


def _print(attempt: Attempt) -> dict[str, Any]:
    print(line_of(attempt.value), flush=True)
    attempt.work()
    return attempt.value


def line_of(value: dict[str, Any]) -> str:
    """What a printing job prints."""
    return f"output of {value['label']} attempt {value['attempt']} pid {value['pid']}"


def _fail(attempt: Attempt) -> dict[str, Any]:
    attempt.work()
    raise JobFailed(attempt.job.label, attempt.task_id, attempt.number, os.getpid())


def _be_flaky(attempt: Attempt) -> dict[str, Any]:
    return _fail(attempt) if attempt.number <= FLAKY_FAILURES else attempt.value


def _crash(attempt: Attempt) -> dict[str, Any]:
    attempt.work()
    attempt.note("crashes")
    if attempt.number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(5)


def _crash_once(attempt: Attempt) -> dict[str, Any]:
    return _crash(attempt) if attempt.number == 1 else _work(attempt)


def _start_daemon(attempt: Attempt) -> dict[str, Any]:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.alarm(DAEMON_SECONDS)
            os.write(writer, b"x")
            while True:
                time.sleep(DAEMON_SECONDS)
        os._exit(0)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    attempt.work()
    return attempt.value


def _wait_for_children(attempt: Attempt) -> dict[str, Any]:
    return _with_children(attempt, "quick", 3)


def _wait_for_parents(attempt: Attempt) -> dict[str, Any]:
    return _with_children(attempt, "parent", 2)


def _with_children(attempt: Attempt, kind: str, count: int) -> dict[str, Any]:
    try:
        children = palpable.current_task().map(perform, _children(attempt, kind, count))
    except (palpable.PalpableError, JobFailed):  # a child was killed
        return _fail(attempt)
    return {**attempt.value, "children": children}


def _submit_followups(attempt: Attempt) -> dict[str, Any]:
    tasks = [palpable.Task(Perform(child)) for child in _children(attempt, "quick", 2)]
    followups = palpable.current_task().submit_tasks(tasks, need_followup=True)
    return {**attempt.value, "followups": followups}


def _children(attempt: Attempt, kind: str, count: int) -> list[Job]:
    job = attempt.job
    labels = [f"{job.label}.{attempt.number}.{number}" for number in range(count)]
    return [Job(job.folder, label, kind, 0.01) for label in labels]


BEHAVIOURS: dict[str, Callable[[Attempt], dict[str, Any]]] = {
    "quick": _work,
    "slow": _work,
    "once": _work,
    "overdue": _work,
    "printing": _print,
    "failing": _fail,
    "flaky": _be_flaky,
    "doomed": _crash,
    "crashing": _crash_once,
    "daemonic": _start_daemon,
    "parent": _wait_for_children,
    "grandparent": _wait_for_parents,
    "leaving": _submit_followups,
}
