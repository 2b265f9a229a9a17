"""What the owner of a server is told when it could not start."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from palpable.servants.control import ServerFailed
from palpable.servants.server import _why_not_started


def _said(error: str, message: str, number: int | None = None) -> str:
    settings: Any = SimpleNamespace(address=("127.0.0.1", 8089))
    return _why_not_started(settings, ServerFailed(error=error, message=message, error_number=number))


def test_that_it_cannot_listen_is_said_with_the_address() -> None:
    assert _said("CannotListen", "[Errno 13] Permission denied") == (
        "the server cannot listen on ('127.0.0.1', 8089): [Errno 13] Permission denied"
    )
    assert "choose another port" in _said("CannotListen", "in use", errno.EADDRINUSE)


@pytest.mark.parametrize(
    ("error", "message", "said"),
    [
        ("TimeoutError", "these processes do not end: [7]", "TimeoutError: these processes do not end: [7]"),
        ("PermissionError", "[Errno 13] no: '/logs'", "PermissionError: [Errno 13] no: '/logs'"),
        ("TimeoutError", "", "TimeoutError"),
    ],
)
def test_of_other_reasons_it_is_not_said_that_it_cannot_listen(error: str, message: str, said: str) -> None:
    assert _said(error, message) == f"the server could not start: {said}"
