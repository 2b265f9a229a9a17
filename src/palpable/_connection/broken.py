"""What callers are told when their connection breaks."""

from __future__ import annotations

from palpable.units.task_exceptions import ServerUnreachable

NEXT_CALL = " The next call of the client connects again."
"""Advice for programs; a command makes no next call."""


def broken(reason: str, address: str) -> ServerUnreachable:
    """Return what to raise, with what to do about it.

    Args:
        reason: why it broke, or why it could not be made again. One that is a sentence says itself what to do.
        address: of the server; empty: not known, as inside a task.
    """
    advice = ". Is the server still running?" + NEXT_CALL
    if reason.endswith((".", "?")):
        advice = ""
    where = f" at {address}" if address else ""
    return ServerUnreachable(f"the connection to the server{where} broke: {reason}{advice}", address=address)
