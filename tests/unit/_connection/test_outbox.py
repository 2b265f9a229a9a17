"""What is sent is merged, in order, and whole, also when the thread that sends is interrupted."""

from __future__ import annotations

import sys
import threading
from itertools import count
from types import FrameType
from typing import Any

import pytest

from palpable._connection.outbox import ACKNOWLEDGE_AFTER, BATCH_MAX_TASKS, SMALL_FUNCTION_BYTES, Outbox
from palpable._connection.pending import Pending
from palpable._connection.waiting import Request
from palpable._wire.framing import FrameReader
from palpable._wire.messages import (
    CancelTasks,
    ClientRequest,
    GetStatus,
    ResultsReceived,
    SubmitTasks,
    TaskOptions,
    TaskRequest,
)

OPTIONS = TaskOptions()


class Wire:
    """Takes what is sent, `at_most` bytes at a time; interrupts as told."""

    def __init__(self, at_most: int = 1 << 20) -> None:
        self.data = bytearray()
        self.sends = 0
        self.at_most = at_most
        self.interrupt_every = 0
        self.is_full = False

    def send(self, data: Any, flags: int) -> int:
        self.sends += 1
        if self.is_full:
            raise BlockingIOError
        if self.interrupt_every and self.sends % self.interrupt_every == 0:
            raise KeyboardInterrupt
        taken = bytes(data)[: self.at_most]
        self.data += taken
        return len(taken)

    @property
    def messages(self) -> list[Any]:
        return FrameReader[Any](ClientRequest).feed(bytes(self.data))


def _task(number: int, key: str = "f") -> TaskRequest:
    return TaskRequest(f"t{number}", "call", key, b"payload")


def test_tasks_with_the_same_options_leave_in_one_message() -> None:
    outbox, wire = Outbox(), Wire()
    for number in range(10):
        outbox.add_task(_task(number), b"function", OPTIONS)
    assert outbox.has_unsent and outbox.has_tasks
    outbox.flush(wire.send, None)
    (message,) = wire.messages
    assert [task.task_id for task in message.tasks] == [f"t{number}" for number in range(10)]
    assert message.functions == {"f": b"function"}
    assert not outbox.has_unsent and not outbox.is_writing


def test_tasks_with_other_options_leave_in_messages_of_their_own_and_in_order() -> None:
    outbox, wire, urgent = Outbox(), Wire(), TaskOptions(priority=1)
    outbox.add_task(_task(1), b"", OPTIONS)
    outbox.add_task(_task(2), b"", urgent)
    outbox.add_task(_task(3), b"", urgent, "none")
    outbox.add_task(_task(4), b"", urgent, "none", True)
    outbox.flush(wire.send, None)
    assert [[task.task_id for task in message.tasks] for message in wire.messages] == [["t1"], ["t2"], ["t3"], ["t4"]]
    assert [message.options.priority for message in wire.messages] == [0, 1, 1, 1]
    assert [(message.delivery, message.needs_exit) for message in wire.messages[1:]] == [
        ("push", False),
        ("none", False),
        ("none", True),
    ]


def test_several_small_messages_leave_in_one_system_call() -> None:
    outbox, wire = Outbox(), Wire()
    outbox.add_task(_task(1), b"", OPTIONS)
    outbox.add(GetStatus(request_id=90))
    outbox.add_task(_task(2), b"", OPTIONS)
    outbox.flush(wire.send, None)
    assert wire.sends == 1
    assert [type(message) for message in wire.messages] == [SubmitTasks, GetStatus, SubmitTasks]


def test_a_full_batch_says_so() -> None:
    outbox = Outbox()
    told = [outbox.add_task(_task(number), b"", OPTIONS) for number in range(BATCH_MAX_TASKS)]
    assert told == [False] * (BATCH_MAX_TASKS - 1) + [True]


def test_a_function_goes_with_every_batch_until_one_that_held_it_was_accepted() -> None:
    outbox, wire = Outbox(), Wire()
    for number in (1, 2):
        outbox.add_task(_task(number), b"function", OPTIONS)
        outbox.flush(wire.send, None)
    assert all(message.functions for message in wire.messages)
    outbox.accepted(wire.messages[0].request_id)
    outbox.add_task(_task(3), b"function", OPTIONS)
    outbox.flush(wire.send, None)
    assert not wire.messages[2].functions


def test_a_large_function_is_sent_once_and_again_if_it_was_refused() -> None:
    outbox, wire, large = Outbox(), Wire(), bytes(SMALL_FUNCTION_BYTES + 1)
    for number in (1, 2):
        outbox.add_task(_task(number), large, OPTIONS)
        outbox.flush(wire.send, None)
    assert [bool(message.functions) for message in wire.messages] == [True, False]
    refused = outbox.refused(wire.messages[0].request_id)
    assert refused is not None and [task.task_id for task in refused.tasks] == ["t1"]
    outbox.forget(wire.messages[0].request_id)
    outbox.add_task(_task(3), large, OPTIONS)
    outbox.flush(wire.send, None)
    assert wire.messages[2].functions
    assert sorted(outbox.unanswered) == [wire.messages[1].request_id, wire.messages[2].request_id]


def _calls(outbox: Outbox, wire: Wire, numbers: range) -> list[int]:
    """One call after the other, each with a small result; return what was acknowledged on the way."""
    for number in numbers:
        outbox.add_task(_task(number), b"function", OPTIONS)
        outbox.flush(wire.send, None)
        outbox.acknowledge(number, is_small=True)
    return [message.sequence for message in wire.messages if isinstance(message, ResultsReceived)]


def test_small_results_of_calls_that_follow_each_other_are_acknowledged_together() -> None:
    outbox, wire = Outbox(), Wire()
    assert _calls(outbox, wire, range(1, ACKNOWLEDGE_AFTER + 1)) == []
    assert _calls(outbox, wire, range(ACKNOWLEDGE_AFTER + 1, 2 * ACKNOWLEDGE_AFTER)) == [ACKNOWLEDGE_AFTER]


def test_a_flush_with_nothing_else_to_send_acknowledges_a_small_result() -> None:
    outbox, wire = Outbox(), Wire()
    _calls(outbox, wire, range(1, 3))
    assert outbox.has_unsent and not outbox.has_tasks
    outbox.flush(wire.send, None)
    assert wire.messages[-1] == ResultsReceived(sequence=2)
    assert not outbox.has_unsent


def test_a_question_after_a_small_result_finds_it_acknowledged() -> None:
    outbox, wire = Outbox(), Wire()
    _calls(outbox, wire, range(1, 3))
    outbox.add(GetStatus(request_id=9))
    outbox.flush(wire.send, None)
    assert wire.messages[-2:] == [ResultsReceived(sequence=2), GetStatus(request_id=9)]


def test_a_large_result_is_acknowledged_with_the_next_task_and_small_ones_with_it() -> None:
    outbox, wire = Outbox(), Wire()
    _calls(outbox, wire, range(1, 3))
    outbox.acknowledge(3)
    assert _calls(outbox, wire, range(4, 6)) == [3]


def test_acknowledgements_are_merged_and_go_before_what_is_asked_later() -> None:
    outbox, wire = Outbox(), Wire()
    for sequence in (1, 2, 3):
        outbox.acknowledge(sequence)
    assert outbox.has_unsent and not outbox.has_tasks
    outbox.add(GetStatus(request_id=9))
    outbox.flush(wire.send, None)
    assert wire.messages == [ResultsReceived(sequence=3), GetStatus(request_id=9)]
    outbox.acknowledge(2)
    assert not outbox.has_unsent


def test_what_the_socket_takes_in_pieces_arrives_whole() -> None:
    outbox, wire = Outbox(), Wire(at_most=7)
    outbox.add_task(_task(1), b"function" * 20, OPTIONS)
    outbox.flush(wire.send, None)
    assert [type(message) for message in wire.messages] == [SubmitTasks]


def test_a_send_that_was_interrupted_goes_on_where_it_stopped() -> None:
    outbox, wire = Outbox(), Wire(at_most=7)
    outbox.add_task(_task(1), b"function" * 20, OPTIONS)
    outbox.add(GetStatus(request_id=9))
    interrupts, wire.interrupt_every = 0, 3
    while outbox.has_unsent:
        try:
            outbox.flush(wire.send, None)
        except KeyboardInterrupt:
            interrupts += 1
            assert not outbox.is_writing
    assert interrupts
    assert [type(message) for message in wire.messages] == [SubmitTasks, GetStatus]


def test_a_socket_that_takes_no_more_leaves_the_rest_for_later() -> None:
    outbox, wire = Outbox(), Wire()
    wire.is_full = True
    outbox.add(GetStatus(request_id=1))
    assert not outbox.flush(wire.send, None)
    assert outbox.has_unsent

    def wait_writable() -> None:
        wire.is_full = False

    assert outbox.flush(wire.send, wait_writable)
    assert wire.messages == [GetStatus(request_id=1)]


def test_who_interrupts_it_at_any_step_sends_and_nothing_is_lost_or_sent_twice() -> None:
    for step in count():
        outbox, wire, steps, was_interrupted = Outbox(), Wire(at_most=11), count(), False
        outbox.add(GetStatus(request_id=1))
        outbox.add(GetStatus(request_id=2))

        def interrupt(frame: FrameType, event: str, arg: object) -> None:
            nonlocal was_interrupted
            if frame.f_code.co_filename.endswith("/outbox.py") and next(steps) == step:  # noqa: B023
                was_interrupted = True
                wire.is_full = False  # noqa: B023
                outbox.add(GetStatus(request_id=3))  # noqa: B023
                outbox.flush(wire.send, None)  # noqa: B023

        sys.setprofile(interrupt)
        try:
            outbox.flush(wire.send, None)
        finally:
            sys.setprofile(None)
        outbox.flush(wire.send, None)
        ids = [message.request_id for message in wire.messages]
        assert ids == sorted([1, 2, *([3] if was_interrupted else [])]), step
        if not was_interrupted:
            break
    assert step > 20


def test_what_another_thread_adds_while_one_sends_is_sent_by_that_one() -> None:
    outbox, wire = Outbox(), Wire()
    outbox.add(GetStatus(request_id=1))

    def send(data: Any, flags: int) -> int:
        if not wire.sends:
            adder = threading.Thread(target=add_and_flush)
            adder.start()
            adder.join(10)
            assert not adder.is_alive()  # it does not wait for us
        return wire.send(data, flags)

    def add_and_flush() -> None:
        outbox.add(GetStatus(request_id=2))
        outbox.flush(pytest.fail, None)

    outbox.flush(send, None)
    assert [message.request_id for message in wire.messages] == [1, 2]


def test_over_another_socket_a_question_goes_after_the_task_that_was_submitted_before_it() -> None:
    pending = Pending()
    outbox, successor, wire = Outbox(pending), Outbox(pending), Wire()
    outbox.add_task(_task(1), b"", OPTIONS, "none")  # waits for others, and leaves with the question
    request = Request(outbox.new_request_id())
    outbox.ask(request, CancelTasks(request_id=request.request_id, task_ids=["t1"]))
    outbox.hand_over(successor, now=0.0)
    successor.flush(wire.send, None)
    assert [type(message) for message in wire.messages] == [SubmitTasks, CancelTasks]
