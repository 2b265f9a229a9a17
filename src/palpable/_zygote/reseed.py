"""New seeds for random number generators after a fork, so that no two task processes draw the same numbers.

Runs in: the zygote (`find_generators`) and the task process (the functions that returned).

Only generators of modules that the zygote has loaded are concerned: one loaded later seeds itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from palpable._zygote.os_calls import getrandom

SEED_BYTES = 32
STATE_BYTES = 624 * 4
"""Of a Mersenne twister."""


def find_generators() -> list[Callable[[], object]]:
    """Return one function for each loaded global generator, which seeds it from the system's randomness."""
    return [make() for name, make in _MAKERS.items() if name in sys.modules]


def _for_random() -> Callable[[], object]:
    generator: Any = sys.modules["random"]._inst
    base: Any = type(generator).__base__  # the generator itself, written in C
    state = _state_in(generator, base)
    if state is not None:
        generator.gauss_next = None
        return partial(getrandom, state, STATE_BYTES, 0)

    def seed() -> None:
        base.seed(generator, int.from_bytes(os.urandom(SEED_BYTES), "little"))
        generator.gauss_next = None

    return seed


def _state_in(generator: Any, base: Any) -> ctypes.c_void_p | None:
    """Return where the generator keeps its state; None if it can't be overwritten there.

    A Mersenne twister is as good with any state. To fill it with random bytes writes to a page or two; to seed it in
    Python, to ten more.
    """
    offset = base.__basicsize__ - STATE_BYTES
    if getrandom is None or not 16 <= offset <= 24:
        return None
    expected = b"".join(word.to_bytes(4, sys.byteorder) for word in generator.getstate()[1][:-1])
    for address in range(id(generator) + 16, id(generator) + offset + 1, 4):
        if ctypes.string_at(address, STATE_BYTES) == expected:
            return ctypes.c_void_p(address)
    return None


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
