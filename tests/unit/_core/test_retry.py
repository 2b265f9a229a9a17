"""The wait before another attempt."""

from __future__ import annotations

import random

import pytest

from palpable._core.retry import next_delay
from palpable._core.task_policy import TaskPolicy


@pytest.mark.parametrize(("failures", "most"), [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (2000, 10.0)])
def test_the_wait_is_spread_over_a_range_that_doubles_up_to_a_limit(failures: int, most: float) -> None:
    policy, rng = TaskPolicy(backoff_seconds=2.0, max_backoff_seconds=10.0), random.Random(7)
    delays = [next_delay(policy, failures, rng) for _ in range(500)]
    assert min(delays) >= 0.0 and max(delays) <= most
    assert min(delays) < most * 0.05 and max(delays) > most * 0.95


def test_without_backoff_there_is_no_wait() -> None:
    assert next_delay(TaskPolicy(backoff_seconds=0.0), 5, random.Random(1)) == 0.0
