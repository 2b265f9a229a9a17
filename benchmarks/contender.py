"""What every contender is: something that runs a function elsewhere, configured for two workers.

Runs in: the driver, which reads only what a class declares, and a measuring process, which makes one and uses it.
So a contender imports its peer in `set_up`, not above.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar

from benchmarks import tasks

WORKERS = 2

FAMILIES = (
    "floor",
    "palpable",
    "pool",
    "executor",
    "loky",
    "joblib",
    "pebble",
    "mpire",
    "dask",
    "ray",
    "rq",
    "celery",
    "dramatiq",
    "huey",
    "original",
)
"""The modules of `benchmarks.contenders`; each lists its variants in `CONTENDERS`."""


class NotAvailable(Exception):
    """This contender can't run here; the message says why."""


class Contender:
    """The common shape: set up, submit, result, call, map, tear down."""

    name: ClassVar[str]
    """The family, and what distinguishes a variant: "pool", "pool-fresh"."""
    title: ClassVar[str]
    """How it is called and configured, for the tables."""
    answers: ClassVar[frozenset[str]]
    """The questions it takes part in."""
    distribution: ClassVar[str | None] = None
    """The package whose version is reported; None: part of Python."""
    environment: ClassVar[str] = "bench"
    """Which environment of `environments` it runs in."""
    is_fresh: ClassVar[bool] = False
    """Every task has a process of its own."""
    functions_from_main: ClassVar[bool] = False
    """The functions come from `__main__`, as in a script or notebook, not from an importable module."""
    first_count: ClassVar[int] = 8
    """The size of the first batch when throughput is measured; larger where a small batch would measure latency."""
    map_limit: ClassVar[int | None] = None
    """The most params of one `map`, where 100,000 would take minutes."""
    fib_limit: ClassVar[int | None] = None
    """The largest Fibonacci number it is asked for, for the same reason."""
    queue_limit: ClassVar[int | None] = None
    """The most tasks it is asked to hold queued, for the same reason."""

    def set_up(self) -> None:
        """Start everything; may raise `ImportError` or `NotAvailable`."""
        raise NotImplementedError

    def tear_down(self) -> None:
        """End everything that `set_up` started."""
        raise NotImplementedError

    def submit(self, function: Callable[..., Any], value: Any) -> Any:
        """Hand in one task without waiting and return a handle for `result`."""
        raise NotImplementedError

    def result(self, handle: Any) -> Any:
        """Wait for the result of one submitted task."""
        raise NotImplementedError

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        """Run one task and wait for it, by the shortest documented way."""
        return self.result(self.submit(function, value))

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        """Run one task per value, never several in one, by the fastest documented way."""
        handles = [self.submit(function, value) for value in values]
        return [self.result(handle) for handle in handles]

    def map(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        """Run `function` over the values by the fastest documented way, in chunks where there are chunks."""
        return self.map_each(function, values)

    def nested_fib(self, number: int) -> int:
        """Fibonacci by sub-tasks: each call of the function is a task that waits for two others."""
        raise NotImplementedError

    def measured_processes(self) -> list[int]:
        """The roots of the process trees that count as this contender's own when at rest.

        By default the measuring process too, since the threads of a pool live there.
        """
        return [os.getpid()]

    def zygotes(self) -> list[int]:
        """The processes that task processes are forked from; none in most contenders."""
        return []

    def function(self, name: str) -> Callable[..., Any]:
        home = sys.modules["__main__"] if self.functions_from_main else tasks
        function: Callable[..., Any] = getattr(home, name)
        return function


def contenders_of(family: str) -> list[type[Contender]]:
    contenders: list[type[Contender]] = import_module(f"benchmarks.contenders.{family}").CONTENDERS
    return contenders


def all_contenders() -> list[type[Contender]]:
    return [contender for family in FAMILIES for contender in contenders_of(family)]


def load_contender(name: str) -> type[Contender]:
    """Return one contender by name; imports only its own family, since the measuring process must stay small."""
    for contender in contenders_of(name.split("-")[0]):
        if contender.name == name:
            return contender
    raise KeyError(name)
