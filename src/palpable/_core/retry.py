"""Whether another attempt follows a failed one, and after which wait."""

from __future__ import annotations

import random

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome

TIMEOUT_BASES = tuple(
    f"palpable.units.task_exceptions.{name}" for name in ("TaskTimeout", "TaskDidNotFinish", "PalpableError")
)
"""What `retry_on` is compared with when an attempt timed out: nobody raised anything."""


def count_failure(task: TaskRecord, outcome: Outcome) -> None:
    """Note how an attempt failed."""
    if outcome is Outcome.CRASHED:
        task.crashes += 1
    elif outcome in (Outcome.ERROR, Outcome.TIMEOUT):
        task.errors += 1


def may_retry(task: TaskRecord, outcome: Outcome, error_bases: tuple[str, ...]) -> bool:
    """Return whether another attempt follows one that ended so, which is counted already.

    Errors and timeouts are counted apart from crashes, so that a task that kills its process does not use up the
    retries meant for a service that is down, nor the other way round.

    Args:
        error_bases: the class of what was raised and its bases, as "module.qualname".
    """
    policy = task.policy
    if policy.at_most_once:
        return False
    if outcome is Outcome.CRASHED:
        return task.crashes <= policy.crash_retries
    if outcome is Outcome.TIMEOUT:
        error_bases = TIMEOUT_BASES
    elif outcome is not Outcome.ERROR:
        return False
    is_meant = not policy.retry_on or not set(policy.retry_on).isdisjoint(error_bases)
    return is_meant and task.errors <= policy.retries


def next_delay(policy: TaskPolicy, failures: int, rng: random.Random) -> float:
    """Return the wait before the next attempt, in seconds.

    Full jitter: uniform over [0, min(cap, base * 2 ** (failures - 1))].
    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.

    Args:
        failures: failed attempts so far, at least 1.
        rng: where the randomness comes from, so that a test can seed it.
    """
    # The exponent is bounded because floats are: with any base above a microsecond the cap is reached long before.
    return rng.uniform(0.0, min(policy.max_backoff_seconds, policy.backoff_seconds * 2.0 ** min(failures - 1, 60)))
