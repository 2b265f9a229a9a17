"""What the engine orders, to be carried out one after the other."""

from __future__ import annotations

import msgspec

from palpable._core.task_record import TaskRecord


class Effect(msgspec.Struct, frozen=True, gc=False):
    """The base of every effect."""


class SaveTask(Effect, frozen=True, gc=False):
    """Write what has changed of the task. Effects that follow are carried out once that is on disk."""

    task: TaskRecord
    is_new: bool = False


class StartRunner(Effect, frozen=True, gc=False):
    """Bind an idle task process to this new runner, as soon as there is one."""

    runner_id: int
    isolation: str


class SendTasks(Effect, frozen=True, gc=False):
    """Hand these tasks to the runner, in this order, after telling it how many were taken back."""

    runner_id: int
    tasks: list[TaskRecord]
    taken_back: int = 0


class TakeBack(Effect, frozen=True, gc=False):
    """Take back what the runner has not begun; handle what it said until then, then report `TasksTakenBack`."""

    runner_id: int


class KillRunner(Effect, frozen=True, gc=False):
    """End the process of this runner with its whole tree."""

    runner_id: int
    is_graceful: bool = True
    """SIGTERM and the grace time first."""


class ReleaseWait(Effect, frozen=True, gc=False):
    """Tell the connection that its wait is over, and the task has a slot."""

    connection_id: int
    wait_id: int


class RefuseWait(Effect, frozen=True, gc=False):
    """Tell the connection that its wait could never end."""

    connection_id: int
    wait_id: int
    message: str


class TasksFinished(Effect, frozen=True, gc=False):
    """These tasks have reached their final states, in this order."""

    tasks: list[TaskRecord]


class TaskSettled(Effect, frozen=True, gc=False):
    """The process of a finished task is gone: its exit status and usage are known, its output is complete."""

    task: TaskRecord


class AttemptFailed(Effect, frozen=True, gc=False):
    """The task will be run again, not before `due_at`, or once its process is gone."""

    task: TaskRecord


class TasksForgotten(Effect, frozen=True, gc=False):
    """The retention limits, or somebody, dropped these tasks."""

    tasks: list[TaskRecord]
