"""A task process lives a few times in the zygote, with one trivial task, before the first real one is forked.

Runs in: the zygote. Code that has run before writes to less memory when it runs in a child: the interpreter fits an
instruction to what it meets there the first few times, and fills its caches.
"""

from __future__ import annotations

import os
import sys
from _socket import socketpair
from contextlib import suppress
from typing import NoReturn

from palpable._wire.framing import encode_frame
from palpable._wire.function_forms import NAMED_MARK
from palpable._wire.messages import RunTasks, TaskOrder
from palpable._wire.payload import dumps_call
from palpable._wire.plain_function import dumps_plain
from palpable._zygote.brief_life import make_life
from palpable._zygote.brief_turn import make_forker
from palpable._zygote.os_calls import getppid
from palpable._zygote.task_process import SOCKET_FD, TaskProcess
from palpable.units.messenger import set_current_task

REHEARSALS = 40
REHEARSED = "palpable._zygote.rehearsed"
CALLS = 10
"""As many calls at birth as there are about; the real ones would make another process of this one."""


class _Rehearsed(BaseException):
    """Raised in place of the end of the process."""


def _end_rehearsal(_code: int) -> NoReturn:
    raise _Rehearsed


def _add_one(number: int) -> int:
    return number + 1


_add_one.__module__ = "__main__"  # so that it travels by value, as most functions do


def trial_frame() -> bytes:
    """Return the frame that orders the trivial task."""
    function, key = dumps_plain(_add_one), "0" * 32
    assert function is not None
    order = TaskOrder("0" * 24, 1, "call", key, dumps_call((1,), {}), name="f")
    return bytes(encode_frame(RunTasks(tasks=[order], functions={key: function}, token="0" * 32)))


def _named_frame() -> bytes:
    """Return a frame that orders a task with a function of a module."""
    key = "1" * 32
    function = NAMED_MARK + f"{REHEARSED}\0add_one".encode()
    order = TaskOrder("0" * 24, 1, "call", key, dumps_call((1,), {}), timeout_seconds=1.0, name="f")
    return bytes(encode_frame(RunTasks(tasks=[order], functions={key: function}, token="0" * 32)))


def rehearse_fork() -> None:
    """Let the code that forks run as it does in a child."""

    def end_rehearsal(_socket_fd: int, _spool_fd: int) -> NoReturn:
        raise _Rehearsed

    def end(error: BaseException) -> NoReturn:
        raise error

    fork_process = make_forker(lambda: 0, end_rehearsal, end)
    ends = memoryview(bytes(24)).cast("i")
    for _ in range(REHEARSALS):
        with suppress(_Rehearsed):
            fork_process(ends, ("", 0))


def rehearse(process: TaskProcess, trial: bytes) -> None:
    """Live, in this process, what `process` is to live in others."""
    live = make_life(process, SOCKET_FD, os.getppid(), [(getppid, ())] * CALLS, _end_rehearsal, trial)
    spool_fds = os.dup(1), os.dup(2)
    named = _named_frame()
    process.prepared.prepare(REHEARSED)
    for number in range(REHEARSALS):
        ours, theirs = socketpair()
        ours.sendall(named if number % 2 else trial)
        sys.modules.pop(REHEARSED, None)
        process.prepared.hand_out_again(REHEARSED)
        with suppress(_Rehearsed):
            live(theirs.fileno(), spool_fds[1])
        ours.close()
        theirs.close()
    for number, fd in enumerate(spool_fds, 1):
        os.dup2(fd, number)
        os.close(fd)
    os.close(SOCKET_FD)
    sys.modules.pop(REHEARSED, None)
    process.prepared.forget(REHEARSED)
    process.clock.take_costs()
    set_current_task(None)
