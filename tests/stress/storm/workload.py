"""What is asked for: the kinds of jobs, how often each comes, and with which options.

Runs in: clients.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from stress.storm.job import Job

PRIORITIES = (-1, 1, 2)


class Kind(NamedTuple):
    """A kind of job.

    Attributes:
        weight: how often it comes, beside the others.
        seconds: it takes from the first to the second.
        options: the task's, whatever else it gets.
        isolations: those it may run in.
    """

    weight: int
    seconds: tuple[float, float]
    options: Mapping[str, Any] = MappingProxyType({})
    isolations: tuple[str, ...] = ("task", "worker")


BRISK = {"backoff_seconds": 0.05, "max_backoff_seconds": 0.2}
KINDS = {
    "quick": Kind(30, (0.0, 0.02)),
    "slow": Kind(15, (0.1, 0.8)),
    "once": Kind(10, (0.05, 0.4), {"at_most_once": True}),
    "overdue": Kind(2, (5.0, 5.0), {"timeout_seconds": 0.2}),
    "printing": Kind(6, (0.0, 0.05)),
    "failing": Kind(5, (0.0, 0.05)),
    "flaky": Kind(8, (0.0, 0.05), {"retries": 3, **BRISK}),
    "doomed": Kind(3, (0.0, 0.05)),
    "crashing": Kind(6, (0.0, 0.05), {"crash_retries": 3, **BRISK}),
    "daemonic": Kind(5, (0.0, 0.3), {"crash_retries": 1, **BRISK}, ("task",)),
    "parent": Kind(8, (0.0, 0.0)),
    "grandparent": Kind(2, (0.0, 0.0)),
    "leaving": Kind(4, (0.0, 0.0)),
}


class Wish(NamedTuple):
    """A job, and the options it is to be submitted with."""

    job: Job
    options: dict[str, Any]


def draw_wish(rng: random.Random, folder: str, label: str, *, kinds: tuple[str, ...] = ()) -> Wish:
    """Return a wish, of one of `kinds` if there are any."""
    names = list(kinds or KINDS)
    name = rng.choices(names, [KINDS[name].weight for name in names])[0]
    kind = KINDS[name]
    options: dict[str, Any] = {"isolation": rng.choice(kind.isolations), **kind.options}
    if rng.random() < 0.15:
        options["priority"] = rng.choice(PRIORITIES)
    if rng.random() < 0.08:
        options["delay_seconds"] = round(rng.uniform(0.05, 1.0), 3)
    if rng.random() < 0.1 and name == "slow":
        options["crash_retries"] = 2
    if rng.random() < 0.1 and name in ("slow", "quick"):
        options["ends_with_client"] = True
    return Wish(Job(folder, label, name, round(rng.uniform(*kind.seconds), 3)), options)
