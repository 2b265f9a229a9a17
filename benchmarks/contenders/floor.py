"""The floor: what fork, `_exit` and wait cost by themselves. No task server can start processes faster."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar

from benchmarks.contender import WORKERS, Contender, NotAvailable


class Floor(Contender):
    """`WORKERS` processes, each forking children that end at once, one after the other. The children run nothing."""

    is_fresh = True
    answers = frozenset({"task_throughput", "call_latency"})
    modules: ClassVar[tuple[str, ...]] = ()
    """What the forking process has imported, besides what a measuring process always holds."""
    forking_processes: ClassVar[int] = WORKERS

    def set_up(self) -> None:
        for module in self.modules:
            import_module(module)
        gc.collect()
        gc.freeze()  # as a zygote does, so that the child does not touch the pages of old objects

    def tear_down(self) -> None:
        gc.unfreeze()

    def call(self, function: Callable[..., Any], value: Any) -> Any:
        fork_children(1)
        return value + 1

    def map_each(self, function: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
        share = len(values) // self.forking_processes
        forkers = [start_forker(share) for _ in range(self.forking_processes - 1)]
        fork_children(len(values) - share * len(forkers))
        for forker in forkers:
            os.waitpid(forker, 0)
        return [value + 1 for value in values]


def fork_children(count: int) -> None:
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def start_forker(count: int) -> int:
    forker = os.fork()
    if forker == 0:
        fork_children(count)
        os._exit(0)
    return forker


class BareFloor(Floor):
    name = "floor-bare"
    title = "fork + _exit + wait, bare interpreter"


class ModulesFloor(Floor):
    name = "floor-modules"
    title = "fork + _exit + wait, holding msgspec, cloudpickle, ctypes"
    modules = ("msgspec", "cloudpickle", "ctypes")


class ZygoteFloor(Floor):
    name = "floor-zygote"
    title = "fork + _exit + wait, holding all that Palpable's zygote holds"
    modules = ("palpable._zygote.zygote", "palpable._wire.payload")

    def set_up(self) -> None:
        try:
            super().set_up()
        except ImportError as error:
            raise NotAvailable(f"Palpable's zygote can't be imported: {error}") from error


class OneProcessFloor(ModulesFloor):
    name = "floor-one"
    title = "fork + _exit + wait, as the second, one process alone"
    answers = frozenset({"task_throughput"})
    forking_processes = 1


CONTENDERS = [BareFloor, ModulesFloor, ZygoteFloor, OneProcessFloor]
