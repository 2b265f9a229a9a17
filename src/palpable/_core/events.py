"""What happens to the engine, in the past tense."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome


class Event(msgspec.Struct, frozen=True):
    """The base of every event."""


class NewTask(msgspec.Struct, frozen=True):
    """A part of `TasksSubmitted`: what the engine must know of a request."""

    task_id: str
    name: str
    function_key: str
    request: Any


class TasksSubmitted(Event, frozen=True):
    """Someone asked for these tasks. Ids that are known already change nothing."""

    tasks: list[NewTask]
    policy: TaskPolicy
    connection_id: int = 0
    parent_id: str = ""
    due_at: float | None = None
    """Not to be started before this moment."""


class SubmissionsWithdrawn(Event, frozen=True):
    """These tasks could not be stored, and nobody was told that they are accepted: they never were.

    Only such as `Engine.can_withdraw`.
    """

    task_ids: list[str]


class TasksRecovered(Event, frozen=True):
    """Tasks of an earlier start of this server, as they were stored, which were not final.

    All that were running come in the first of these events.
    """

    tasks: list[TaskRecord]


class ResultsRecovered(Event, frozen=True):
    """Final tasks of an earlier start of this server, in the order in which they ended."""

    tasks: list[TaskRecord]


class TaskEnding(msgspec.Struct, frozen=True):
    """A part of `TasksEnded`: a task process said that this task returned or raised."""

    task_id: str
    is_successful: bool
    elapsed_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    ending: Any
    error_type: str = ""
    error_message: str = ""
    error_bases: tuple[str, ...] = ()


class TasksEnded(Event, frozen=True):
    runner_id: int
    endings: list[TaskEnding]


class RunnerExited(Event, frozen=True):
    """The process of a runner is gone, and everything it had sent was handled before.

    unclaimed: how many of the tasks handed to it last it had not begun (worker mode).
    """

    runner_id: int
    exit_status: int | None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    unclaimed: int = 0


class TasksTakenBack(Event, frozen=True):
    """The answer to `TakeBack`: the last `count` tasks handed to the runner will not be run by it."""

    runner_id: int
    count: int


class WaitBegan(Event, frozen=True):
    task_id: str
    connection_id: int
    wait_id: int
    task_ids: list[str]
    needs: Literal["all", "any"] = "all"


class WaitEnded(Event, frozen=True):
    """The thread gave up its wait by itself."""

    task_id: str
    connection_id: int
    wait_id: int


class ConnectionClosed(Event, frozen=True):
    connection_id: int
    inside_task: str = ""


class EndRequested(Event, frozen=True):
    """These tasks shall end now, whatever they do."""

    task_ids: list[str]
    outcome: Outcome = Outcome.CANCELLED
    spares_running: bool = False
    """Leave alone those that have begun to run, as their processes know: what was only handed over is taken back."""


class DrainRequested(Event, frozen=True):
    """Start nothing more, but for what running tasks wait for; or start everything again."""

    is_on: bool = True


class StopRequested(Event, frozen=True):
    """The server stops, and every process ends. Every task that is not final fails with the outcome "quit"."""

    hands_back: bool = False
    """With a store: what runs becomes ready again, for the next start of this server, and what is ready stays so."""


class PurgeRequested(Event, frozen=True):
    """Forget final tasks in these states that ended before that moment."""

    states: frozenset[str]
    ended_before: float


class ResultsTaken(Event, frozen=True):
    """The client holds these results; the server drops its copy."""

    task_ids: list[str]


class TimePassed(Event, frozen=True):
    """A moment named by `Engine.next_wakeup` has come."""
