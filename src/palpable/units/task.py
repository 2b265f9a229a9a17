"""One request to run a procedure, with its id."""

from __future__ import annotations

import itertools
import os
import time
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palpable.procedures.procedure import Procedure

_prefix = ""
_counter = itertools.count((1 << 48) + 1)
"""In hexadecimal: 0x1, and twelve digits that count from 1. To cut these out takes half as long as to format them."""


def new_task_id() -> str:
    """Return an id no other task has: 32 hex digits, 20 random ones of this process and a count of 12.

    80 random bits: a million processes share a prefix with a chance of 4e-13. Safe in threads and after a fork.
    """
    return (_prefix or _new_prefix()) + hex(next(_counter))[3:]


def _new_prefix() -> str:
    # Two threads may both come here. Then both prefixes are used, and the common counter keeps the ids apart.
    global _prefix
    _prefix = os.urandom(10).hex()
    return _prefix


def _forget_prefix() -> None:
    """A forked child counts on from the same number, so it must not share the prefix."""
    global _prefix
    _prefix = ""


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_prefix)


class Task:
    """What to run, under an id that is its own from the making.

    Attributes:
        procedure: what to do.
        is_source_blocking: whether the task that submits this one waits for it.
        task_id: a unique string.
        timestamp: when it was made, in seconds since the epoch.

    Raises:
        TypeError: `procedure` has no `run` to call.
    """

    def __init__(self, procedure: Procedure, is_source_blocking: bool = False) -> None:
        _check_procedure(procedure)
        self.procedure = procedure
        self.is_source_blocking = is_source_blocking
        self.task_id = new_task_id()
        self.timestamp = time.time()

    def __repr__(self) -> str:
        return f"<Task {self.task_id} {type(self.procedure).__qualname__}>"


def _check_procedure(procedure: Any) -> None:
    run = getattr(procedure, "run", None)
    if isinstance(procedure, type) and isinstance(_defined_in(procedure, "run"), FunctionType):
        run = None  # the class in place of an instance; a class method or a static one could be called
    if not callable(run):
        raise TypeError(
            f"procedure must be an object with a method run(messenger), such as an instance of a subclass of "
            f"Procedure, or RunFunction(function, argument), not {procedure!r}"
        )


def _defined_in(kind: type, name: str) -> Any:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
