"""New seeds after a fork."""

from __future__ import annotations

import random
import sys

import pytest

from palpable._zygote.reseed import find_generators


def test_random_gets_a_new_seed_each_time() -> None:
    state = random.getstate()
    try:
        drawn = set()
        for _ in range(3):
            random.seed(1)
            random.gauss(0, 1)  # leaves a second number for the next call
            for seed in find_generators():
                seed()
            drawn.add((random.gauss(0, 1), random.random()))
        assert len(drawn) == 3
    finally:
        random.setstate(state)


def test_a_module_that_is_not_loaded_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "numpy.random", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert find_generators() == []
    assert "numpy" not in sys.modules or "numpy.random" not in sys.modules
