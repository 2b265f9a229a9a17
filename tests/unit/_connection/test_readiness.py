"""Waiting until a socket can be read."""

from __future__ import annotations

import math
import socket

import pytest

from palpable._connection.readiness import wait_until_ready


@pytest.mark.parametrize("timeout_seconds", [None, math.inf, 1e300, 10**9, 5])
def test_what_is_ready_is_found_however_long_one_would_wait(timeout_seconds: float | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        assert wait_until_ready((ours,), (), timeout_seconds) == {ours.fileno()}


@pytest.mark.parametrize("timeout_seconds", [0, -1, -math.inf])
def test_who_would_not_wait_does_not(timeout_seconds: float) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert wait_until_ready((ours,), (), timeout_seconds) == set()
