"""What happens to the engine, in the past tense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome


class Event(msgspec.Struct, frozen=True, gc=False):
    """The base of every event."""


class Wanted(Protocol):
    """A part of `TasksSubmitted`: what the engine must know of a request. It keeps the request as it is."""

    @property
    def task_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def function_key(self) -> str: ...


class TasksSubmitted(Event, frozen=True, gc=False):
    """Someone asked for these tasks. Ids that are known already change nothing."""

    tasks: Sequence[Wanted]
    policy: TaskPolicy
    name: str = ""
    """Shown in place of their own."""
    receiver: Any = None
    """Kept with those that are new."""
    connection_id: int = 0
    parent_id: str = ""
    due_at: float | None = None
    """Not to be started before this moment."""


class SubmissionsWithdrawn(Event, frozen=True, gc=False):
    """These tasks could not be stored, and nobody was told that they are accepted: they never were.

    Only such as `Engine.can_withdraw`.
    """

    task_ids: list[str]


class TasksRecovered(Event, frozen=True, gc=False):
    """Tasks of an earlier start of this server, as they were stored, which were not final.

    All that were running come in the first of these events.
    """

    tasks: list[TaskRecord]


class ResultsRecovered(Event, frozen=True, gc=False):
    """Final tasks of an earlier start of this server, in the order in which they ended."""

    tasks: list[TaskRecord]


class Ending(Protocol):
    """A part of `TasksEnded`: a task process said that this task returned or raised. The record keeps it as it is."""

    @property
    def task_id(self) -> str: ...
    @property
    def is_successful(self) -> bool: ...
    @property
    def elapsed_seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> float: ...
    @property
    def peak_memory_bytes(self) -> int: ...
    @property
    def error_type(self) -> str: ...
    @property
    def error_message(self) -> str: ...
    @property
    def error_bases(self) -> tuple[str, ...]: ...


class TasksEnded(Event, frozen=True, gc=False):
    runner_id: int
    endings: Sequence[Ending]


class RunnerExited(Event, frozen=True, gc=False):
    """The process of a runner is gone, and everything it had sent was handled before.

    unclaimed: how many of the tasks handed to it last it had not begun: in worker mode the rest of its inbox; in task
        mode 1 if it ended before it had read its only order.
    """

    runner_id: int
    exit_status: int | None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    unclaimed: int = 0


class TasksTakenBack(Event, frozen=True, gc=False):
    """The answer to `TakeBack`: the last `count` tasks handed to the runner will not be run by it."""

    runner_id: int
    count: int


class WaitBegan(Event, frozen=True, gc=False):
    task_id: str
    connection_id: int
    wait_id: int
    task_ids: list[str]
    needs: Literal["all", "any"] = "all"


class WaitEnded(Event, frozen=True, gc=False):
    """The thread gave up its wait by itself."""

    task_id: str
    connection_id: int
    wait_id: int


class ConnectionClosed(Event, frozen=True, gc=False):
    connection_id: int
    inside_task: str = ""


class EndRequested(Event, frozen=True, gc=False):
    """These tasks shall end now, whatever they do."""

    task_ids: list[str]
    outcome: Outcome = Outcome.CANCELLED
    spares_running: bool = False
    """Leave alone those that have begun to run, as their processes know: what was only handed over is taken back."""


class DrainRequested(Event, frozen=True, gc=False):
    """Start nothing more, but for what running tasks wait for; or start everything again."""

    is_on: bool = True


class StopRequested(Event, frozen=True, gc=False):
    """The server stops, and every process ends. Every task that is not final fails with the outcome "quit"."""

    hands_back: bool = False
    """With a store: what runs becomes ready again, for the next start of this server, and what is ready stays so."""
    is_recovering: bool = False
    """Not all is known yet that an earlier start had left: that stays as it is, and what ran then stays interrupted."""


class PurgeRequested(Event, frozen=True, gc=False):
    """Forget final tasks in these states that ended before that moment."""

    states: frozenset[str]
    ended_before: float


class ResultsTaken(Event, frozen=True, gc=False):
    """The client holds these results; the server drops its copy."""

    task_ids: list[str]


class TimePassed(Event, frozen=True, gc=False):
    """A moment named by `Engine.next_wakeup` has come."""
