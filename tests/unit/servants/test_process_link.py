"""The server's end of the line to a task process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from palpable._wire.framing import FrameReader, encode, encode_frame
from palpable._wire.messages import RunTasks, TaskEnded, TaskOrder, TaskReturned, ToTaskProcess
from palpable._wire.returns import number_of
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
def test_a_process_that_no_pipes_can_be_made_for_is_ended_and_its_tasks_are_nobodys(
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


class WatchedSocket(socket.socket):
    """Calls something before it receives."""

    before_receiving: Callable[[], None] | None = None

    def recv(self, size: int, flags: int = 0) -> bytes:
        call, self.before_receiving = self.before_receiving, None
        if call is not None:
            call()
        return super().recv(size, flags)


class Pair:
    """A link to a kept process that is played here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_messages: Any) -> None:
        self.ended: list[int] = []
        ours, self.theirs = socket.socketpair()
        self.ours = WatchedSocket(fileno=ours.detach())
        self.ours.setblocking(False)
        self.link = ProcessLink(1, "worker", 1 << 20, on_messages, loop)
        self.link.send_tasks([TaskOrder("t1", 1, "call", "f", b"")], {}, 0)
        self.link.bind(7, self.ours, "", self)  # type: ignore[arg-type]
        data, fds, _, _ = socket.recv_fds(self.theirs, 1 << 16, 2)
        data += self.theirs.recv(1 << 16)
        (self.run,) = FrameReader(ToTaskProcess).feed(data)
        self.claim_fd, self.return_fd = fds
        self.count = 0

    def end_process(self, pid: int, grace_seconds: float) -> None:
        self.ended.append(pid)

    def say_returned(self, *task_ids: str) -> None:
        for task_id in task_ids:
            os.write(self.return_fd, encode(TaskReturned(task_id, b"", 0.0, 0.0, 0, 0, 0, number_of(self.count))))
            self.count += 1

    def say_ended(self, *task_ids: str) -> None:
        for task_id in task_ids:
            self.theirs.sendall(encode_frame(TaskEnded(task_id=task_id, is_successful=False)))

    def next_run(self) -> RunTasks:
        self.link.send_tasks([TaskOrder("t", 1, "call", "f", b"")], {}, 0)
        (run,) = FrameReader(ToTaskProcess).feed(self.theirs.recv(1 << 16))
        assert isinstance(run, RunTasks)
        return run

    def close(self) -> None:
        self.link.close()
        self.theirs.close()
        os.close(self.claim_fd)
        os.close(self.return_fd)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def run_briefly(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0.02))


def ids_in(messages: deque[Any]) -> list[str]:
    ids: list[str] = []
    while messages:
        message = messages.popleft()
        ids += [one.task_id for one in (message if isinstance(message, list) else [message])]
    return ids


@pytest.mark.parametrize("by_draining", [False, True])
def test_what_came_by_the_pipe_is_heard_before_what_came_by_the_socket(
    loop: asyncio.AbstractEventLoop, by_draining: bool
) -> None:
    heard: list[str] = []
    pair = Pair(loop, lambda link, messages: heard.extend(ids_in(messages)))
    pair.say_returned("a", "b")
    pair.say_ended("c", "d")
    if by_draining:
        pair.link.drain()
    else:
        pair.link._on_readable()
    assert heard == ["a", "b", "c", "d"]
    assert pair.run.heard == 0 and pair.next_run().heard == 2
    pair.say_returned("e")
    run_briefly(loop)
    assert heard == ["a", "b", "c", "d", "e"]
    pair.close()


def test_what_is_said_while_the_server_reads_is_heard_in_order(loop: asyncio.AbstractEventLoop) -> None:
    heard: list[str] = []
    pair = Pair(loop, lambda link, messages: heard.extend(ids_in(messages)))

    def speak() -> None:
        pair.say_returned("a")
        pair.say_ended("b")

    pair.ours.before_receiving = speak
    pair.link._on_readable()
    assert heard == ["a", "b"]
    pair.close()


def test_what_is_read_while_something_is_handled_comes_after_what_was_received_before(
    loop: asyncio.AbstractEventLoop,
) -> None:
    heard: list[str] = []

    def on_messages(link: ProcessLink, messages: deque[Any]) -> None:
        message = messages.popleft()
        heard.extend(ids_in(deque([message])))
        if heard[-1] == "a":
            pair.say_ended("c")
            link.drain()  # as when a task is taken back
        heard.extend(ids_in(messages))

    pair = Pair(loop, on_messages)
    pair.say_returned("a")
    pair.say_ended("b")
    pair.link._on_readable()
    assert heard == ["a", "b", "c"]
    pair.close()


def test_what_a_process_has_said_by_the_pipe_is_heard_after_its_end(loop: asyncio.AbstractEventLoop) -> None:
    heard: list[str] = []
    pair = Pair(loop, lambda link, messages: heard.extend(ids_in(messages)))
    pair.say_returned("a", "b")
    pair.theirs.close()
    pair.link.drain()
    assert heard == ["a", "b"]
    assert not pair.link.was_never_read  # it has begun something
    pair.close()


def test_a_pipe_that_nobody_writes_to_any_more_is_not_looked_at_again(loop: asyncio.AbstractEventLoop) -> None:
    pair = Pair(loop, lambda link, messages: messages.clear())
    writer = pair.return_fd
    pair.return_fd = os.open(os.devnull, os.O_RDONLY)
    os.close(writer)
    reader = pair.link._pipes.returns_fd  # type: ignore[union-attr]
    assert loop.remove_reader(reader)
    loop.add_reader(reader, pair.link._on_returned)
    run_briefly(loop)
    assert not loop.remove_reader(reader)
    pair.close()


def test_a_process_that_writes_garbage_to_its_pipe_is_ended(loop: asyncio.AbstractEventLoop) -> None:
    heard: list[str] = []
    pair = Pair(loop, lambda link, messages: heard.extend(ids_in(messages)))
    os.write(pair.return_fd, b"this is no record")
    run_briefly(loop)
    assert pair.ended == [7]
    pair.say_ended("a")
    pair.say_returned("b")
    run_briefly(loop)
    assert heard == []
    pair.close()
