"""The steps that `make slowed` slows are there, and are slowed where it says."""

from __future__ import annotations

import time

import pytest

from stress import slowed


@pytest.mark.parametrize("step", slowed.STEPS.values(), ids=slowed.STEPS)
def test_a_step_is_a_method_and_pauses_on_its_side_of_what_it_does(
    step: slowed.Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(getattr(step.owner, step.method))
    order: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: order.append(f"{seconds} s"))
    slow = slowed.slowed(lambda word, *, end: order.append(word + end), step.is_before)
    slow("do", end="ne")
    pause = f"{slowed.SECONDS} s"
    assert order == ([pause, "done"] if step.is_before else ["done", pause])
