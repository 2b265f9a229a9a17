"""What a client that asks for a log gets, and when the answer ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import State
from palpable._wire.messages import LogChunk, ReadLogs
from palpable.servants import log_reading
from palpable.servants.log_reading import LogReading
from palpable.servants.output_store import OutputStore

WAIT_SECONDS = 20


class Peer:
    """Takes chunks; `on_chunk` is called after each."""

    connection_id, inside_task = 1, ""

    def __init__(self) -> None:
        self.is_writable = True
        self.chunks: list[LogChunk] = []
        self.on_chunk: Callable[[], object] = lambda: None

    def send(self, message: Any) -> None:
        assert self.is_writable
        self.chunks.append(message)
        self.on_chunk()

    def owe(self, count: int) -> None: ...

    @property
    def text(self) -> bytes:
        assert [chunk.is_last for chunk in self.chunks] == [False] * (len(self.chunks) - 1) + [True]
        return b"".join(chunk.data for chunk in self.chunks)


class World:
    """A manager with one running task, which prints to a file."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.spool.touch()
        self.outputs = OutputStore(limit_bytes=100)
        self.task = TaskRecord("t", None, "f", "", TaskPolicy(), "task", 1, 0.0)
        self.task.state, self.task.runner_id = State.RUNNING, 1
        self.peer = Peer()
        self.link = SimpleNamespace(spool_path=str(self.spool), isolation="task", collected_bytes=0)
        runner = SimpleNamespace(inbox=deque([self.task]))
        self.manager: Any = SimpleNamespace(
            engine=SimpleNamespace(tasks={"t": self.task}, dispatcher=SimpleNamespace(runners={1: runner})),
            outputs=self.outputs,
            links={1: self.link},
        )

    def prints(self, data: bytes) -> None:
        with self.spool.open("ab") as file:
            file.write(data)

    def asked(self) -> bytes:
        """Ask what it has printed so far, and return the answer."""
        return asyncio.run(self._asked())

    async def _asked(self) -> bytes:
        done = asyncio.Event()
        LogReading(self.manager, self.peer, ReadLogs(request_id=1, task_id="t", follow=False), done.set).start()
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
        return self.peer.text


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(log_reading, "FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr(log_reading, "CHUNK_BYTES", 10)
    return World(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 95])
def test_all_that_is_there_is_sent_in_chunks(world: World, size: int) -> None:
    world.prints(bytes(range(size)))
    assert world.asked() == bytes(range(size))
    assert max(len(chunk.data) for chunk in world.peer.chunks) <= 10


def test_the_answer_ends_where_the_output_did_when_it_was_asked_for(world: World) -> None:
    world.prints(b"x" * 25)
    world.peer.on_chunk = lambda: world.prints(b"more " * 5)
    assert world.asked() == b"x" * 25


def test_a_peer_that_does_not_read_is_sent_no_more_until_it_does(world: World) -> None:
    world.prints(b"x" * 50)
    refused = 0

    def stop_reading() -> None:
        world.peer.is_writable = False
        asyncio.get_running_loop().call_later(0.001, read_again)

    def read_again() -> None:
        nonlocal refused
        refused += 1
        world.peer.is_writable = True

    world.peer.on_chunk = stop_reading  # `send` fails if it is called nevertheless
    assert world.asked() == b"x" * 50
    assert refused >= 4


def test_a_chunk_is_sent_in_each_turn_of_the_loop(world: World) -> None:
    world.prints(b"x" * 50)
    turns = []
    world.peer.on_chunk = lambda: asyncio.get_running_loop().call_soon(turns.append, len(world.peer.chunks))
    assert world.asked() == b"x" * 50
    assert turns[:4] == [1, 2, 3, 4]


def test_what_earlier_attempts_printed_comes_first_and_once_though_much_of_it_was_cut(world: World) -> None:
    earlier = world.spool.with_name("earlier")
    earlier.write_bytes(b"a" * 50 + b"b" * 1000 + b"c" * 50)
    world.outputs.collect("t", str(earlier), 0)
    world.prints(b"second")
    assert world.asked() == world.outputs.data("t") + b"second"


def test_the_answer_ends_when_the_task_shortens_its_file(world: World) -> None:
    world.prints(b"x" * 50)
    world.peer.on_chunk = lambda: world.spool.write_bytes(b"")
    assert world.asked() == b"x" * 10


def test_a_task_that_ends_meanwhile_gives_the_rest(world: World) -> None:
    world.prints(b"x" * 50 + b"end")

    def end() -> None:
        if not world.task.is_final:
            world.outputs.collect("t", str(world.spool), 0)
            world.task.state, world.task.is_settled = State.SUCCEEDED, True
            world.manager.links.clear()

    world.peer.on_chunk = end
    assert world.asked() == b"x" * 50 + b"end"
