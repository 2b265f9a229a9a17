"""The least of a server, for tests of the zygote: takes what it forks, sends orders, notes what comes back."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.messages import FromTaskProcess, ProcessExit, RunTasks, TaskEnded, TaskOrder, ZygoteReady
from palpable._wire.payload import dumps_call, dumps_function, loads, name_of
from palpable._zygote.settings import ZygoteSettings
from palpable._zygote.zygote_handle import ForkedProcess, ZygoteHandle

T = TypeVar("T")
WAIT_SECONDS = 20.0
TOKEN = "token of the tasks"


def order(function: Callable[..., Any], *args: Any, task_id: str = "t1") -> TaskOrder:
    """An order to call `function`; `functions_of` gives what has to travel with it."""
    key = dumps_function(function).key
    return TaskOrder(task_id, 1, "call", key, dumps_call(args, {}), name=name_of(function).rpartition(".")[2])


def functions_of(*functions: Callable[..., Any]) -> dict[str, bytes]:
    return {(pickled := dumps_function(function)).key: pickled.data for function in functions}


class FakeProcess:
    """The server's side of one task process."""

    def __init__(self, pid: int, end: socket.socket, spool: str) -> None:
        self.pid = pid
        self.socket = end
        self.spool = Path(spool)
        self.reader: FrameReader[Any] = FrameReader(FromTaskProcess)
        self.received: list[Any] = []

    async def send(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        frame = bytes(encode_frame(message))
        sent = socket.send_fds(self.socket, [frame], list(fds)) if fds else 0
        await asyncio.get_running_loop().sock_sendall(self.socket, frame[sent:])

    async def receive(self) -> Any:
        """The next message; None at the end."""
        while not self.received:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 1 << 16), WAIT_SECONDS)
            if not data:
                return None
            self.received += self.reader.feed(data)
        return self.received.pop(0)

    async def run(self, function: Callable[..., Any], *args: Any) -> TaskEnded | None:
        """Have it run one task in task mode; None if the process ended without an answer."""
        await self.send(RunTasks(tasks=[order(function, *args)], functions=functions_of(function), token=TOKEN))
        try:
            return await self.receive()  # type: ignore[no-any-return]
        except ConnectionError:
            return None

    def output(self) -> str:
        return self.spool.read_text()


class FakeServer:
    """Owns one zygote. To be used with `async with`."""

    def __init__(self, folder: Path, *, processes: int = 1, preload: list[str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.settings = ZygoteSettings(
            name="z", spool_folder=str(folder), sys_path=sys.path, cwd=os.getcwd(), preload=preload or []
        )
        self.processes = processes
        self.idle: asyncio.Queue[FakeProcess] = asyncio.Queue()
        self.exits: dict[int, ProcessExit] = {}
        self.forked: list[FakeProcess] = []
        self.changed = asyncio.Event()
        self.ready: ZygoteReady | None = None
        self.deaths = 0
        self.handle = ZygoteHandle(
            self.settings,
            on_ready=self._on_ready,
            on_forked=self._on_forked,
            on_exited=self._on_exited,
            on_died=self._on_died,
        )

    async def __aenter__(self) -> FakeServer:
        self.handle.start()
        if self.processes:
            self.handle.keep_alive(self.processes)
        await self.until(lambda: self.ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.handle.close()
        await asyncio.wait_for(self.handle.wait_died(), WAIT_SECONDS)
        for process in self.forked:
            process.socket.close()

    async def until(self, fact: Callable[[], T]) -> T:
        """Return what `fact()` returns once that is true; it is asked again after each callback."""

        async def wait() -> T:
            while not (value := fact()):
                self.changed.clear()
                await self.changed.wait()
            return value

        return await asyncio.wait_for(wait(), WAIT_SECONDS)

    async def take(self) -> FakeProcess:
        """An idle process."""
        return await asyncio.wait_for(self.idle.get(), WAIT_SECONDS)

    async def run(self, function: Callable[..., Any], *args: Any) -> tuple[TaskEnded | None, ProcessExit, FakeProcess]:
        """Run one task in a process of its own; return its answer, its exit and the process."""
        process = await self.take()
        ended = await process.run(function, *args)
        return ended, await self.exit_of(process), process

    async def value(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run one task that is to succeed; return its value."""
        ended, _, _ = await self.run(function, *args)
        assert ended is not None and ended.payload is not None
        assert ended.is_successful, ended.traceback
        return loads(ended.payload)

    async def exit_of(self, process: FakeProcess) -> ProcessExit:
        return await self.until(lambda: self.exits.get(process.pid))  # type: ignore[return-value]

    def _on_ready(self, ready: ZygoteReady) -> None:
        self.ready = ready
        self.changed.set()

    def _on_forked(self, forked: list[ForkedProcess]) -> None:
        for pid, end, spool in forked:
            process = FakeProcess(pid, end, spool)
            self.forked.append(process)
            self.idle.put_nowait(process)
        self.changed.set()

    def _on_exited(self, exits: list[ProcessExit]) -> None:
        for exit in exits:
            assert exit.pid not in self.exits or len(self.forked) > 1000, "a pid was reported twice"
            self.exits[exit.pid] = exit
        self.changed.set()

    def _on_died(self) -> None:
        self.deaths += 1
        self.changed.set()


def serve(folder: Path, test: Callable[[FakeServer], Awaitable[None]], **options: Any) -> None:
    """Run `test` with a fake server."""

    async def main() -> None:
        async with FakeServer(folder, **options) as server:
            await test(server)

    asyncio.run(main())
