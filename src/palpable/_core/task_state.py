"""The life of a task, as a table.

Few states, many reasons: why a task ended is its `Outcome`, not a state. Nothing outside this module names a
transition; `move` is the only way from one state to the next.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class _HashedAsString(StrEnum):
    """An enumeration's own `__hash__` is written in Python, and slow."""

    __hash__ = str.__hash__


class State(_HashedAsString):
    """Where a task is in its life. The last three are final."""

    SCHEDULED = "scheduled"
    """Its time has not come."""
    READY = "ready"
    RUNNING = "running"
    RETRYING = "retrying"
    """An attempt failed, and another one follows after a wait."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(_HashedAsString):
    """What can happen to a task."""

    DUE = "due"
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    RESCUE = "rescue"
    """Its server ended, or is about to, and it did not: it will be run again."""
    TAKE_BACK = "take back"
    """It was presumed to have begun, but its process had not claimed it."""


class Outcome(_HashedAsString):
    """Why a task ended."""

    NONE = ""
    SUCCEEDED = "succeeded"
    ERROR = "error"
    """Its procedure raised."""
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    """Its process ended without an answer: a signal, an exit, a dead zygote."""
    CANCELLED = "cancelled"
    QUIT = "quit"
    """The server stopped."""
    LOST = "lost"
    """Its server ended while it ran, and it may run at most once."""
    REJECTED = "rejected"
    """It could not be started at all."""


READY, RUNNING, START, SUCCEEDED = State.READY, State.RUNNING, Move.START, Outcome.SUCCEEDED
"""For what is done for every task: before Python 3.12 an attribute of an enumeration takes five times as long."""

TRANSITIONS: Final = {
    (State.SCHEDULED, Move.DUE): State.READY,
    (State.SCHEDULED, Move.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Move.FAIL): State.FAILED,
    (State.READY, Move.START): State.RUNNING,
    (State.READY, Move.CANCEL): State.CANCELLED,
    (State.READY, Move.FAIL): State.FAILED,  # the server stops before the task could run
    (State.RUNNING, Move.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Move.FAIL): State.FAILED,
    (State.RUNNING, Move.CANCEL): State.CANCELLED,
    (State.RUNNING, Move.RETRY): State.RETRYING,
    (State.RUNNING, Move.RESCUE): State.READY,
    (State.RUNNING, Move.TAKE_BACK): State.READY,
    (State.RETRYING, Move.DUE): State.READY,
    (State.RETRYING, Move.CANCEL): State.CANCELLED,
    (State.RETRYING, Move.FAIL): State.FAILED,
}

FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class IllegalMove(RuntimeError):
    """A task was told to do what its state does not allow: a bug of Palpable."""


def move(state: State, what: Move) -> State:
    """Return the state after `what`.

    Raises:
        IllegalMove: the table has no such pair.
    """
    try:
        return TRANSITIONS[state, what]
    except KeyError:
        raise IllegalMove(f"a task that is {state} cannot {what}") from None
