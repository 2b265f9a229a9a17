"""The server's end of the line to a task process."""

from __future__ import annotations

import asyncio

from palpable._wire.messages import TaskOrder
from palpable.servants.process_link import ProcessLink


def test_functions_of_orders_that_were_taken_back_before_there_was_a_process_are_not_known_to_it() -> None:
    loop = asyncio.new_event_loop()
    try:
        link = ProcessLink(1, "worker", 1024, lambda link, messages: None, loop)
        link.known_functions.add("f")
        link.send_tasks([TaskOrder("t1", 1, "call", "f", b"")], {"f": b"pickled"}, 0)
        assert link.take_back() == 1
        assert link.known_functions == set()
    finally:
        loop.close()
