"""Tasks as rows of a store, and back.

What repeats from task to task is made once: a queue of a million tasks must fit into memory.
"""

from __future__ import annotations

from msgspec.json import Decoder, Encoder

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._store.store import TaskRow, TaskState
from palpable._wire.messages import TaskRequest

SHARED_MAX = 1000
"""Policies, and requests, that are held for those that come."""


class TaskRows:
    """Makes rows of records and records of rows, for one start of a server.

    Args:
        utc_offset: what is added to monotonic seconds to get UTC seconds since the epoch.
        boot: the number of this start.
    """

    def __init__(self, utc_offset: float, boot: int) -> None:
        self._utc_offset = utc_offset
        self._boot = boot
        self._texts: dict[TaskPolicy, str] = {}
        self._policies: dict[str, TaskPolicy] = {}
        self._requests: dict[tuple[str, str, str], TaskRequest] = {}
        self._encode = Encoder().encode
        self._decode = Decoder(TaskPolicy).decode

    def row_of(self, task: TaskRecord) -> TaskRow:
        """Return what never changes of a task."""
        policy = task.policy
        text = self._texts.get(policy)
        if text is None:
            if len(self._texts) >= SHARED_MAX:
                self._texts.clear()
            text = self._texts[policy] = self._encode(policy).decode()
        return TaskRow(
            task.sequence,
            task.task_id,
            task.name,
            task.request.form,
            task.function_key,
            text,
            policy.priority,
            task.submitted_at + self._utc_offset,
            task.parent_id,
            task.depth,
        )

    def state_of(self, task: TaskRecord) -> TaskState:
        """Return how a task stands, for all that will be known if this server ends now."""
        offset = self._utc_offset
        state, attempt = task.state, task.attempt
        if state is State.READY and (task.runner_id is not None or task.is_leased):
            # Handed over ahead, or about to be: it may have begun by then.
            state, attempt = State.RUNNING, attempt + 1
        return TaskState(
            task.sequence,
            state,
            task.outcome,
            attempt,
            self._boot,
            None if task.due_at is None else task.due_at + offset,
            None if task.started_at is None else task.started_at + offset,
            None if task.finished_at is None else task.finished_at + offset,
            task.errors,
            task.crashes,
            task.error_type,
            task.error_message,
            task.exit_status,
            task.cpu_seconds,
            task.peak_memory_bytes,
            task.is_taken,
            tuple(task.followup_ids or ()),
        )

    def record_of(self, row: TaskRow, state: TaskState, now: float) -> TaskRecord:
        """Return a task as it was stored. Its payloads stay in the store until they are needed.

        Args:
            now: monotonic seconds. What has happened is not in the future, whatever a clock says that was set back
                since then.
        """
        policy = self._policies.get(row.policy)
        if policy is None:
            if len(self._policies) >= SHARED_MAX:
                self._policies.clear()
            policy = self._policies[row.policy] = self._decode(row.policy)

        def past(at: float | None) -> float | None:
            return None if at is None else min(at - self._utc_offset, now)

        return TaskRecord(
            task_id=row.task_id,
            request=None if state.outcome == Outcome.SUCCEEDED else self._request_of(row),
            name=row.name,
            function_key=row.function_key,
            policy=policy,
            isolation=policy.isolation,
            sequence=row.sequence,
            submitted_at=past(row.submitted_at) or 0.0,
            parent_id=row.parent_id,
            depth=row.depth,
            state=State(state.state),
            outcome=Outcome(state.outcome),
            attempt=state.attempt,
            errors=state.errors,
            crashes=state.crashes,
            due_at=None if state.due_at is None else state.due_at - self._utc_offset,
            started_at=past(state.started_at),
            finished_at=past(state.finished_at),
            error_type=state.error_type,
            error_message=state.error_message,
            exit_status=state.exit_status,
            cpu_seconds=state.cpu_seconds,
            peak_memory_bytes=state.peak_memory_bytes,
            is_taken=state.is_taken,
            followup_ids=list(state.followup_ids) or None,
            is_on_disk=True,
        )

    def _request_of(self, row: TaskRow) -> TaskRequest:
        """Return the request without what is the task's own: its id, and the payload, which is in the store."""
        key = (row.form, row.function_key, row.name)
        request = self._requests.get(key)
        if request is None:
            if len(self._requests) >= SHARED_MAX:
                self._requests.clear()
            request = self._requests[key] = TaskRequest("", row.form, row.function_key, b"", row.name)  # type: ignore[arg-type]
        return request
