"""New seeds for random number generators after a fork, so that no two task processes draw the same numbers.

Runs in: the zygote (`find_generators`) and the task process (the functions that returned).

Only generators of modules that the zygote has loaded are concerned: one loaded later seeds itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

SEED_BYTES = 32


def find_generators() -> list[Callable[[], object]]:
    """Return one function for each loaded global generator, which seeds it from the system's randomness."""
    return [make() for name, make in _MAKERS.items() if name in sys.modules]


def _for_random() -> Callable[[], object]:
    generator: Any = sys.modules["random"]._inst
    base: Any = type(generator).__base__  # the generator itself, written in C

    def seed() -> None:
        base.seed(generator, int.from_bytes(os.urandom(SEED_BYTES), "little"))
        generator.gauss_next = None

    return seed


def _for_numpy() -> Callable[[], object]:
    numpy_random: Any = sys.modules["numpy.random"]

    def seed() -> None:
        numpy_random.seed(list(memoryview(os.urandom(SEED_BYTES)).cast("I")))

    return seed


def _for_torch() -> Callable[[], object]:
    torch: Any = sys.modules["torch"]

    def seed() -> None:
        torch.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)

    return seed


_MAKERS = {"random": _for_random, "numpy.random": _for_numpy, "torch": _for_torch}
