"""What this process knows of the task it runs, if it runs one.

Runs in: clients and task processes. Set by: the task process, before each task.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palpable.units.messenger import Messenger

TASK_ID_VARIABLE = "PALPABLE_TASK_ID"
TASK_TOKEN_VARIABLE = "PALPABLE_TASK_TOKEN"

_current: Messenger | None = None
_pid = 0


def set_current_messenger(messenger: Messenger | None) -> None:
    """Say which task this process runs from now on; None: none."""
    global _current, _pid
    _current = messenger
    _pid = os.getpid()


def set_next_messenger(messenger: Messenger) -> None:
    """As `set_current_messenger`, in a process that has set one before."""
    global _current
    _current = messenger


def current_messenger() -> Messenger | None:
    """Return the messenger of the task this process runs. None outside of tasks, and in a child that a task forked."""
    return _current if _current is not None and _pid == os.getpid() else None


def inherited_messenger() -> Messenger | None:
    """Return the messenger also in a child that the task forked; good for its facts, not for its connection."""
    return _current


def is_descendant() -> bool:
    """Whether this process runs a task, or was forked by one that does."""
    return _current is not None


def current_task_id() -> str:
    """Return the id of the task this process belongs to; "" outside."""
    return os.environ.get(TASK_ID_VARIABLE, "")


def identity() -> tuple[str, str]:
    """Return id and token of the task this process belongs to, also as its descendant; ("", "") outside."""
    return os.environ.get(TASK_ID_VARIABLE, ""), os.environ.get(TASK_TOKEN_VARIABLE, "")
