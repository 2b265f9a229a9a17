"""Waiting for a fact, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.01


def wait_until(fact: Callable[[], T], timeout_seconds: float = 10.0) -> T:
    """Return what `fact()` returns, as soon as that is true in the sense of `if`.

    Raises:
        AssertionError: it did not come true in time; names the last value.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout_seconds} s: {fact}, last value {value!r}")
        time.sleep(POLL_SECONDS)
