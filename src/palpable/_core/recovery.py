"""What becomes of the tasks of a server that ended: after a crash, or a stop that handed them back."""

from __future__ import annotations

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Move, Outcome, State, move


def resume(task: TaskRecord, interrupted: set[str], now: float) -> Outcome:
    """Take a task that was not final up again; return how it is to end at once, or NONE.

    A task that ran is run again, and its attempts go on counting: a task run twice is better than a task lost. Unless
    it may run at most once: then it is lost.

    Args:
        interrupted: the tasks that were running. What these had submitted and may have waited for is of no use to the
            attempts that follow, which will submit it again; follow-ups live on, and so do tasks with a key, which
            those attempts will find again.
    """
    if task.state is State.RETRYING and task.due_at is None:
        task.due_at = now  # its server ended before the process did; by now both are gone
    elif task.state is State.RETRYING and task.due_at is not None:
        # The clock may have been set back since.
        task.due_at = min(task.due_at, now + task.policy.max_backoff_seconds)
    was_running = task.state is State.RUNNING
    if was_running and not task.policy.at_most_once:
        task.state, task.started_at = move(task.state, Move.RESCUE), None
    if was_running and task.policy.at_most_once:
        return Outcome.LOST
    if task.parent_id in interrupted and not task.policy.is_followup and not task.policy.idempotency_key:
        return Outcome.CANCELLED
    # Its connection is closed, whether the client lives or not.
    return Outcome.CANCELLED if task.policy.ends_with_client else Outcome.NONE
