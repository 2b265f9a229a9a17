"""All that the server knows of one task."""

from __future__ import annotations

from typing import Any

import msgspec

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_state import FINAL, Outcome, State


class Wait(msgspec.Struct, eq=False):
    """A thread of a running task blocks until all, or any, of some tasks have ended."""

    task: TaskRecord
    """The one that waits."""
    connection_id: int
    wait_id: int
    remaining: set[str]
    needs_all: bool
    is_satisfied: bool = False


class TaskRecord(msgspec.Struct, eq=False, gc=False):
    """One task. Only the engine changes it; times with `_at` are monotonic seconds.

    The garbage collector does not look at it, again and again, for as long as it is kept: it is in a cycle only while a
    wait is open, and no record is dropped before its waits are over.
    """

    task_id: str
    request: Any
    """The client's request, opaque here; dropped when the task has succeeded."""
    name: str
    function_key: str
    policy: TaskPolicy
    isolation: str
    """As in the policy, which is a step further away."""
    sequence: int
    """Order of arrival, counted over all starts of a durable server."""
    submitted_at: float
    connection_id: int = 0
    """Who submitted it; 0: a connection of an earlier start of the server."""
    parent_id: str = ""
    depth: int = 0
    """0 for a task submitted from outside; a sub-task is one deeper than its parent."""
    receiver: Any = None
    """Who is to be pushed the result (`delivery`); the engine does not use it."""

    state: State = State.READY
    outcome: Outcome = Outcome.NONE
    attempt: int = 0
    errors: int = 0
    """Attempts that raised or timed out."""
    crashes: int = 0
    """Attempts whose process died."""
    due_at: float | None = None
    """Scheduled and retrying: not before this moment. None while retrying: once the process of the attempt is gone."""
    urgency: int = 0
    """Above 0: a running task waits for this one; the deeper the waiter, the more urgent."""
    level: tuple[int, int] | None = None
    """Where it stands in the ready queue; None: it does not."""
    verdict: Outcome = Outcome.NONE
    """How it shall end as soon as its runner's other tasks are out of the way."""
    is_verdict_void_once_begun: bool = False
    """Unless it turns out that it had begun by then."""
    runner_id: int | None = None
    """The runner it was handed to, also while it waits there for its turn."""
    lost_processes: int = 0
    """Processes that ended after it was handed to them, and before they began it."""
    started_at: float | None = None
    finished_at: float | None = None
    waits: list[Wait] | None = None
    """What its threads wait for."""
    waited_by: list[Wait] | None = None
    """The waits this task is in."""
    followup_ids: list[str] | None = None

    ending: Any = None
    """What its process said of the end, an `events.Ending`; None if it said nothing, or the result was taken."""
    error_type: str = ""
    error_message: str = ""
    exit_status: int | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    is_settled: bool = False
    """Final, and nothing more will be learned of its process."""
    is_taken: bool = False
    """Its result was handed over; only the facts are kept, for lists."""
    progress: tuple[float, float, str] | None = None
    is_on_disk: bool = False
    """Its payloads are in the store and not here: it was recovered."""
    is_leased: bool = False
    """Ready, and saved as begun already: it can be handed over without waiting for the disk."""
    saved_in: int = 0
    """The batch of the journal that holds it as it was marked last; the engine does not use it."""
    unsaved: int = 0
    """What the journal has yet to write of it; the engine does not use it."""

    @property
    def timeout_seconds(self) -> float | None:
        return self.policy.timeout_seconds

    @property
    def kind(self) -> str:
        """What its duration is compared by."""
        return self.function_key or self.name

    @property
    def is_final(self) -> bool:
        return self.state in FINAL
