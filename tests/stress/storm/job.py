"""A job: what one task of the storm is to do, under a label that its client chose before it submitted the task.

Runs in: clients make jobs, tasks perform them. The label joins what a client noted before it knew the task's id with
what the task noted.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import palpable
from stress.storm.event_log import EventLog


@dataclass(frozen=True)
class Job:
    """What a task is to do.

    Attributes:
        folder: where the storm keeps its records.
        label: unique among all that is asked for.
        kind: which behaviour (`behaviours`).
        seconds: how long it takes, where the behaviour takes time.
    """

    folder: str
    label: str
    kind: str
    seconds: float = 0.0


class Attempt:
    """One attempt at a job: notes its start and its end, and holds a lock in between.

    The lock is the proof of fencing: every process that the attempt forks keeps it, so the next attempt at the same job
    finds it free only when nothing is left of this one.
    """

    def __init__(self, job: Job) -> None:
        task = palpable.current_task()
        self.job = job
        self.task_id = task.task_id
        self.number = task.attempt

    def __enter__(self) -> Self:
        job = self.job
        self._log = EventLog(f"{job.folder}/tasks.jsonl")
        path = f"{job.folder}/locks/{job.label}"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        is_alone = True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_alone = False
        self.note("started", parent=os.getppid(), is_alone=is_alone, kind=job.kind)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.note("ended", how="returned" if error is None else "raised")
        os.close(self._lock)
        self._log.close()

    def note(self, event: str, **facts: Any) -> None:
        self._log.write(
            event, label=self.job.label, task_id=self.task_id, attempt=self.number, pid=os.getpid(), **facts
        )

    @property
    def value(self) -> dict[str, Any]:
        """What the task returns: another attempt would return something else."""
        return {"label": self.job.label, "task_id": self.task_id, "attempt": self.number, "pid": os.getpid()}

    def work(self) -> None:
        """Take the time that the job takes."""
        time.sleep(self.job.seconds)
