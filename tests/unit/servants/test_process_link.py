"""The server's end of the line to a task process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

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


@pytest.mark.parametrize("lacking", ["pipe2", "open"])
def test_a_process_that_no_claim_pipe_can_be_made_for_is_ended_and_its_tasks_are_nobodys(
    monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    class Zygote:
        ended: list[int] = []  # noqa: RUF012 - this class has one use

        def end_process(self, pid: int, grace_seconds: float) -> None:
            self.ended.append(pid)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    loop = asyncio.new_event_loop()
    ours, theirs = socket.socketpair()
    try:
        zygote: Any = Zygote()
        link = ProcessLink(1, "worker", 1024, lambda link, messages: None, loop)
        link.send_tasks([TaskOrder("t1", 1, "call", "f", b"")], {"f": b"pickled"}, 0)
        fds = set(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(os, lacking, fail)
            link.bind(7, ours, "", zygote)
        assert set(os.listdir("/proc/self/fd")) == fds
        link.send_tasks([TaskOrder("t2", 1, "call", "f", b"")], {}, 0)
        assert zygote.ended == [7]
        assert link.take_back() == 2
        assert link.take_back() == 0
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):  # it was told nothing that it could begin
            theirs.recv(1)
    finally:
        link.close()
        theirs.close()
        loop.close()
