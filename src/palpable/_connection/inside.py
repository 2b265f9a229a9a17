"""What this process knows of the task it runs, if it runs one.

Runs in: clients and task processes. Set by: the task process, before its task, or once if it runs many.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from palpable.units.messenger import Messenger

TASK_ID_VARIABLE = "PALPABLE_TASK_ID"
TASK_TOKEN_VARIABLE = "PALPABLE_TASK_TOKEN"

_current: Messenger | None = None
_make: Callable[[], Messenger | None] | None = None
"""In a process that runs many tasks: returns the messenger of the running one, in place of `_current`."""
_pid = 0


def set_current_messenger(messenger: Messenger | None) -> None:
    """Say which task this process runs from now on; None: none."""
    global _current, _pid
    _current = messenger
    _pid = os.getpid()


def set_messenger_maker(make: Callable[[], Messenger | None]) -> None:
    """Have `make` say which task this process runs, whenever somebody asks."""
    global _make
    _make = make
    set_current_messenger(None)


def current_messenger() -> Messenger | None:
    """Return the messenger of the task this process runs. None outside of tasks, and in a child that a task forked."""
    messenger = inherited_messenger()
    return messenger if messenger is not None and _pid == os.getpid() else None


def inherited_messenger() -> Messenger | None:
    """Return the messenger also in a child that the task forked; good for its facts, not for its connection."""
    return _current if _make is None else _make()


def is_descendant() -> bool:
    """Whether this process runs a task, or was forked by one that does."""
    return inherited_messenger() is not None


def current_task_id() -> str:
    """Return the id of the task this process belongs to; "" outside."""
    return os.environ.get(TASK_ID_VARIABLE, "")


def identity() -> tuple[str, str]:
    """Return id and token of the task this process belongs to, also as its descendant; ("", "") outside."""
    return os.environ.get(TASK_ID_VARIABLE, ""), os.environ.get(TASK_TOKEN_VARIABLE, "")
