"""Tests with one step of the test server or of the client slowed down: what depends on chance fails then.

A test that waits for the first of two events, and relies on the second, passes as long as the second is quick. On a
machine with much to do it fails, once in hundreds of runs. With a pause before the second it fails always.

`python -m stress.slowed` runs the tests of clients once for each step. This module is the plugin that slows one.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from palpable._connection.connection import Connection
from palpable._connection.link import Link
from palpable._connection.reconnecting import Reconnecting
from palpable._connection.sender import Sender
from support.fake_server import Conversation, FakeServer

SECONDS = 0.02
"""Longer than whatever follows a step on its own; short enough for those that are taken hundreds of times."""


class Step(NamedTuple):
    """A method, and whether the pause is before or after what it does."""

    owner: type
    method: str
    is_before: bool = True


STEPS = {
    "the server takes a request": Step(FakeServer, "_handle"),
    "the server answers": Step(Conversation, "send"),
    "the server goes on after an answer": Step(Conversation, "send", is_before=False),
    "the server shakes hands": Step(FakeServer, "_shake_hands"),
    "the server has dropped connections": Step(FakeServer, "drop_connections", is_before=False),
    "the client reads": Step(Link, "read"),
    "the client goes on after reading": Step(Link, "read", is_before=False),
    "the client sends": Step(Sender, "flush"),
    "the client learns of a break": Step(Reconnecting, "broke"),
    "the client dials again": Step(Reconnecting, "_try"),
    "the client goes on after dialling again": Step(Reconnecting, "_try", is_before=False),
    "the background thread looks": Step(Connection, "tend"),
    "the background thread claims to read": Step(Connection, "claim_for_background"),
}
VARIABLE = "PALPABLE_SLOWED_STEP"


def pytest_configure() -> None:
    """Slow the step that the environment names."""
    step = STEPS[os.environ[VARIABLE]]
    setattr(step.owner, step.method, slowed(getattr(step.owner, step.method), step.is_before))


def slowed(method: Callable[..., Any], is_before: bool) -> Callable[..., Any]:
    """Return the method with a pause."""

    @functools.wraps(method)
    def slow(*args: Any, **kwargs: Any) -> Any:
        if is_before:
            time.sleep(SECONDS)
        result = method(*args, **kwargs)
        if not is_before:
            time.sleep(SECONDS)
        return result

    return slow


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of how fast something is, or of how much is done in a time."""
    left_out = [item for item in items if item.get_closest_marker("speed")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
