"""How a task is to be run: what its submitter asked for, the server's defaults filled in."""

from __future__ import annotations

import msgspec


class TaskPolicy(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One for all the tasks of a submission, so that a queued task costs no more with it. Durations in seconds."""

    isolation: str = "task"
    timeout_seconds: float | None = None
    """Wall time an attempt may take. None: any."""
    priority: int = 0
    """Higher runs earlier."""
    ends_with_client: bool = False
    """Cancel the task when the connection that submitted it closes."""
    is_followup: bool = False
    """It lives on when the task that submitted it has ended, or is run again."""
    retries: int = 0
    """Further attempts after one that raised or timed out."""
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 300.0
    retry_on: tuple[str, ...] = ()
    """Only after errors of these classes ("module.qualname") or of their subclasses. Empty: after any."""
    crash_retries: int = 0
    """Further attempts after one whose process died."""
    at_most_once: bool = False
    """Never run again what may have run: it ends as lost."""
    idempotency_key: str = ""
    """If there is one, the result is kept until the retention limits drop it: another may ask with the same key."""
    tags: tuple[str, ...] = ()
