"""The life of a process that runs one task and is gone, from birth to end, in as few memory pages as possible.

Runs in: made in the zygote, at work in the task process. Whatever is not the common case goes to `TaskProcess`.

A new process shares its memory with the zygote, and the first write to each page costs 3 to 4 us here (see
`hot_memory`). To call a function writes to the function, its code, the module it is looked up in and every object that
is read on the way, since all of them count their references. So this is one function instead of ten; everything it
uses is in its closure, made together and last; and what could be done before the fork is done: there is a messenger,
which only has to be told the task. This module is imported last of all, so that its code lies with the rest.
"""

from __future__ import annotations

import os
import sys
from _pickle import dumps, loads
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec.msgpack import Decoder, Encoder

from palpable._connection.inside import set_current_messenger
from palpable._wire.by_value_pickler import ATOMS, PROTOCOL
from palpable._wire.messages import RunTasks, TaskEnded
from palpable._wire.named_function import loads_named
from palpable._wire.payload import MODULE_NOT_FOUND, dumps_result
from palpable._wire.plain_function import loads_plain
from palpable._zygote import output
from palpable._zygote.hot_memory import copy_of
from palpable._zygote.os_calls import RESERVED_BYTES, dup2, getppid, reserve_variable, room_of, strcpy
from palpable.units.messenger import Messenger

if TYPE_CHECKING:
    from collections.abc import Callable

    from palpable._zygote.os_calls import Call
    from palpable._zygote.task_process import TaskProcess

FIRST_READ_BYTES = 1 << 14
ANCILLARY_BYTES = 64


def make_life(
    process: TaskProcess,
    socket_fd: int,
    parent_pid: int,
    calls_at_birth: list[Call],
    exit_process: Callable[[int], NoReturn],
    trial: bytes,
) -> Callable[[int, int], NoReturn]:
    """Return what a child calls first of all, with its end of its socket pair and its spool file.

    It runs a trivial task before it waits for the real one. Nothing is left of that but copies of memory, which the
    real task needs too and now finds: it is done sooner, by 0.3 ms. In CPU time that costs nothing measurable.

    Args:
        process: does what is not common.
        socket_fd: where the private socket is to be.
        parent_pid: the zygote's.
        calls_at_birth: what a new process calls.
        exit_process: ends the process.
        trial: the frame that orders the trivial task.
    """
    getpid = os.getpid
    receive, send = process.socket.recvmsg_into, process.socket.sendall
    buffer = memoryview(bytearray(FIRST_READ_BYTES))
    buffers = [buffer]
    no_ancillary: list[Any] = []
    decode, encode_into = Decoder(RunTasks).decode, Encoder().encode_into
    from_bytes, atoms, modules = int.from_bytes, ATOMS, sys.modules
    environ: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
    task_id_address = reserve_variable(b"PALPABLE_TASK_ID")
    process.task_id_room = room_of(task_id_address)
    token_address = reserve_variable(b"PALPABLE_TASK_TOKEN")
    os.environb[b"PALPABLE_ATTEMPT"] = b"1"
    messenger = Messenger("", 1, None, "", process.get_connection, process.send)
    clock, prepared, lock = process.clock, process.prepared, process.lock
    load_plain, load_named, load_module = copy_of(loads_plain), copy_of(loads_named), prepared.load
    flush, set_current = copy_of(output.flush), copy_of(set_current_messenger)

    trial_size = len(trial)

    def live(end_fd: int, spool_fd: int) -> NoReturn:
        dup2(end_fd, socket_fd)
        dup2(spool_fd, 1)
        dup2(spool_fd, 2)
        for function, arguments in calls_at_birth:
            function(*arguments)
        if getppid() != parent_pid:  # it died before the kernel knew that this process is to die with it
            exit_process(1)
        process.pid = pid = getpid()
        is_trial = True
        while True:
            if is_trial:
                size, ancillary = trial_size, no_ancillary
                buffer[:size] = trial
            else:
                size, ancillary, _, _ = receive(buffers, ANCILLARY_BYTES)
            if size <= 4 or from_bytes(buffer[:4], "little") != size - 4:
                process.obey(bytes(buffer[:size]), ancillary)
            first = decode(buffer[4:size])
            order = first.tasks[0]
            task_id, token = order.task_id.encode(), first.token.encode()
            if (
                first.isolation != "task"
                or order.form != "call"
                or order.attempt != 1
                or not first.functions  # the store has lost it
                or not order.payload
                or len(task_id) > RESERVED_BYTES
                or len(token) > RESERVED_BYTES
            ):
                process.obey(bytes(buffer[:size]), ancillary)

            environ[b"PALPABLE_TASK_ID"] = task_id
            strcpy(task_id_address, task_id)
            environ[b"PALPABLE_TASK_TOKEN"] = token
            strcpy(token_address, token)
            messenger.task_id, messenger.name = order.task_id, order.name
            if order.timeout_seconds is not None:
                messenger.deadline = monotonic() + order.timeout_seconds
            set_current(messenger)
            try:
                data = first.functions[order.function_key]
                form = data[0]
                try:
                    function = load_named(data, load_module) if form == 1 else loads(data) if form else load_plain(data)
                    args, kwargs = loads(order.payload)
                except ModuleNotFoundError as error:
                    error.add_note(MODULE_NOT_FOUND)
                    raise
                value = function(*args, **kwargs)
                payload = dumps(value, PROTOCOL) if type(value) in atoms else dumps_result(value)
            except SystemExit as request:
                process.exit(request)
            except BaseException as error:
                ended = process.failure(order.task_id, error)
            else:
                ended = TaskEnded(
                    task_id=order.task_id,
                    is_successful=True,
                    payload=payload,
                    imported=clock.take_costs() if clock.costs else {},
                    searched=prepared.take_searched() if prepared.searched else [],
                )
            if getpid() != pid:
                process.leave_child()
            flush()

            if "multiprocessing.util" in modules and not is_trial:
                process.end(ended)
            frame = bytearray(4)
            try:
                encode_into(ended, frame, 4)
                frame[:4] = (len(frame) - 4).to_bytes(4, "little")
                with lock:
                    if process.connection is None:
                        if is_trial:
                            is_trial = False
                            continue
                        send(frame)
                        exit_process(0)
            except (OverflowError, MemoryError, OSError):
                pass  # it will be reported as what it is
            process.end(ended)

    return live
