"""The life of a process that runs one task after the other (isolation "worker"), from its first order on.

Runs in: the task process. Whatever is not the common case goes to `TaskProcess`.

Small tasks take a few microseconds, and what is done for each of them here takes longer than they do. So the common
case, a call that returns, is written out here, and what is the same for every task is made once.
"""

from __future__ import annotations

import os
from _pickle import dumps, loads
from time import monotonic, process_time
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from palpable._connection.inside import set_messenger_maker
from palpable._wire.by_value_pickler import ATOMS, PROTOCOL
from palpable._wire.framing import encode
from palpable._wire.messages import TaskReturned
from palpable._wire.payload import MODULE_NOT_FOUND, dumps_result
from palpable._wire.returns import RECORD_MAX_BYTES, number_of
from palpable._zygote import output
from palpable._zygote.fork_mark import make_fork_mark
from palpable._zygote.usage_meter import UsageMeter

if TYPE_CHECKING:
    from palpable._wire.messages import TaskEnded, TaskOrder
    from palpable._zygote.task_process import TaskProcess
    from palpable.units.messenger import Messenger

SHORT_SECONDS = 0.001
"""A shorter task is not asked about children and memory, which would take a tenth of the time that it takes in all.
What it does use of them is counted with the next task that is longer."""
GAP_SECONDS = 0.001
"""To ask for CPU time takes a tenth of the time of a small task, so a task that follows at once begins where the one
before has ended."""


def keep_running(process: TaskProcess, claim_fd: int, return_fd: int) -> NoReturn:
    """Run tasks as they are claimed, until the server closes the claim pipe or the socket.

    Args:
        claim_fd: the read end of the claim pipe.
        return_fd: the write end of the returns pipe.
    """
    read, write, end_of_output, flush = os.read, os.write, output.end, output.flush
    orders, functions, clock, atoms = process.orders, process.functions, process.clock, ATOMS
    prepared = process.prepared
    enter_environment, attempt = process.enter_environment, process.attempt
    running: TaskOrder | None = None
    started_at = 0.0
    made: Messenger | None = None

    def messenger() -> Messenger | None:
        """Return the messenger of the running task, made when it is first asked for. Threads of earlier tasks may ask.

        Who against whom: such a thread, which makes one for the task before, against the loop below, which goes on.
        What it enters too late says for which task it is. What the task itself asks for is made from what is the
        task's, as all of that was set before it began; a thread that comes in between may see another deadline.
        """
        nonlocal made
        order = running
        if order is None:
            return None
        known = made
        # By the id, and not by the order, which would be kept for that, its payload too.
        if known is None or known.task_id != order.task_id or known.attempt != order.attempt:
            limit = order.timeout_seconds
            deadline = None if limit is None else started_at + limit
            made = known = process.messenger(order, deadline)
        return known

    set_messenger_maker(messenger)
    is_parent = make_fork_mark()
    meter = UsageMeter()
    known_key, function = "", None
    returned_count = 0
    ended_at = cpu_to = 0.0
    output_to = end_of_output()
    while True:
        try:
            claim = read(claim_fd, 1)
        except BlockingIOError:
            claim = process.wait_for_claim(claim_fd)
        if not claim:
            process.exit_cleanly(0)
        if not orders or claim[0] != process.take_backs:
            process.read_orders_for(claim[0])
        order = orders.popleft()

        started_at = monotonic()
        cpu_from = cpu_to if started_at - ended_at < GAP_SECONDS else process_time()
        running = order
        payload: bytes | TaskEnded
        if function is not None and order.function_key == known_key and order.form == "call" and order.payload:
            enter_environment(order)
            # What `process.attempt` does, for a call whose function is at hand.
            try:
                try:
                    args, kwargs = loads(order.payload)
                except ModuleNotFoundError as error:
                    error.add_note(MODULE_NOT_FOUND)
                    raise
                value = function(*args, **kwargs)
                payload = dumps(value, PROTOCOL) if type(value) in atoms else dumps_result(value)
            except SystemExit as request:
                process.exit(request)
            except BaseException as error:
                payload = process.failure(order.task_id, error)
            args = kwargs = value = None
        else:
            payload = attempt(order)
            known_key, function = order.function_key, functions.get(order.function_key)
        if not is_parent[0]:
            process.leave_child()
        flush()
        cpu_to, ended_at = process_time(), monotonic()
        cpu_seconds, elapsed_seconds = cpu_to - cpu_from, ended_at - started_at
        if elapsed_seconds >= SHORT_SECONDS:
            cpu_seconds += meter.look()
        # What a thread of an earlier task has written since that ended belongs to this one: to nobody, else.
        output_from, output_to = output_to, end_of_output()
        if (
            type(payload) is bytes
            and len(payload) < RECORD_MAX_BYTES
            and process.said == process.heard
            and process.connection is None
            and not clock.costs
            and not prepared.searched
        ):
            # Another thread may say something or make a connection just now, which changes nothing: what must be heard
            # in order is the ends of tasks, and these come from here.
            record = encode(
                TaskReturned(
                    order.task_id,
                    payload,
                    elapsed_seconds,
                    cpu_seconds,
                    meter.peak_bytes,
                    output_from,
                    output_to,
                    number_of(returned_count),
                )
            )
            if len(record) <= RECORD_MAX_BYTES:
                returned_count += 1  # first: a signal handler may raise when it is written
                try:
                    write(return_fd, record)
                    continue
                except OSError:
                    # The task closed it, perhaps. It is tried by the socket, where that is reported; and so is all that
                    # follows, since nobody knows whether the record with this number is there.
                    process.said += 1
        process.send_last(
            replace(
                process.ended(order, payload),
                elapsed_seconds=elapsed_seconds,
                cpu_seconds=cpu_seconds,
                peak_memory_bytes=meter.peak_bytes,
                output_from=output_from,
                output_to=output_to,
            )
        )
