"""A question the benchmarks answer: what is measured, and the bars Palpable must clear.

Runs in: the driver and every measuring process; so it imports next to nothing, because what a measuring process
holds makes each of its forks dearer, and with that the peers that fork from it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from benchmarks.contender import Contender

NAMES = (
    "task_throughput",
    "call_latency",
    "submit_throughput",
    "map_throughput",
    "import_warmth",
    "idle_cpu",
    "memory_at_rest",
    "nested_fib",
    "imap_stream",
    "async_calls",
    "many_clients",
    "start_up",
    "durable_submit",
    "durable_throughput",
    "durable_task_mode",
    "durable_latency",
    "reopening",
    "disk_after_expiry",
)


class Settings(NamedTuple):
    """How much of everything is done in one measurement."""

    seconds: float = 2.0
    """About how long a throughput is measured."""
    calls: int = 1000
    """Calls timed one by one, at most; less if `seconds` are over."""
    map_count: int = 100_000
    rest_seconds: float = 3.0
    """Before something is measured that needs a server which has come to rest."""
    idle_seconds: float = 30.0
    peer_idle_seconds: float = 10.0
    queued_count: int = 100_000
    fib_number: int = 12
    stream_count: int = 10_000_000
    """Items of a stream whose memory is looked at."""
    awaited_count: int = 10_000
    """Calls that one asyncio loop awaits together."""
    client_count: int = 1000
    stored_count: int = 1_000_000
    """Tasks in a store that is opened."""
    start_count: int = 15
    """Starts of a program that are timed."""
    limit_share: float = 1.0
    """How much of their own limits those contenders do that have one."""

    def limited(self, count: int, limit: int | None) -> int:
        return count if limit is None else min(count, int(limit * self.limit_share))


QUICK = Settings(
    seconds=0.2,
    calls=100,
    map_count=20_000,
    rest_seconds=2.0,
    idle_seconds=2.0,
    peer_idle_seconds=1.0,
    queued_count=10_000,
    fib_number=7,
    stream_count=5_000_000,
    awaited_count=2000,
    client_count=100,
    stored_count=100_000,
    start_count=5,
    limit_share=0.2,
)


class Metric(NamedTuple):
    """A number that every measurement of a question yields; a contender may lack one (None)."""

    key: str
    title: str
    digits: int = 0


class Bar(NamedTuple):
    """What Palpable must reach, either beside a peer (a ratio of the same round) or by itself (a plain number)."""

    claim: str
    metric: str
    ours: str
    """The contender that must reach it."""
    theirs: str | None = None
    """The contender it is compared with; None: the number itself is compared."""
    at_least: float | None = None
    at_most: float | None = None

    def is_reached_by(self, value: float) -> bool:
        is_enough = self.at_least is None or value >= self.at_least
        return is_enough and (self.at_most is None or value <= self.at_most)


class Question(NamedTuple):
    name: str
    title: str
    text: str
    """What is done, in two or three lines; printed above the results."""
    metrics: tuple[Metric, ...]
    bars: tuple[Bar, ...]
    measure: Callable[[Contender, Settings], dict[str, Any]]
    """Runs in the measuring process, on a contender that is set up. Returns metrics by key, and `count`."""
    timeout_seconds: float = 90.0
    """For one measurement, set-up included. What takes longer is ended and reported."""


def load_question(name: str) -> Question:
    question: Question = import_module(f"benchmarks.questions.{name}").QUESTION
    return question
