"""A task process that runs many tasks: the claim pipe, tasks taken back, output and usage of each."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palpable._wire.messages import RunTasks, TaskEnded, TaskOrder, TaskReturned
from palpable._wire.payload import dumps_call, loads
from palpable._wire.returns import ReturnsReader
from support.zygotes import TOKEN, WAIT_SECONDS, FakeProcess, FakeServer, functions_of, order, serve


class FakeWorker:
    """The server's side of a worker process: sends tasks, takes them back."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.returns_fd, self.return_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.returns_fd, False)
        self.returns = ReturnsReader()
        self.heard = 0
        self.endings: list[TaskEnded | TaskReturned] = []
        self.take_backs = 0
        self.unclaimed: list[str] = []  # sent and perhaps claimed, in order
        self.is_first = True
        self.owed = 0

    async def send(self, function: Any, args_of: dict[str, tuple[Any, ...]], others: Sequence[TaskOrder] = ()) -> None:
        tasks = [order(function, *args, task_id=task_id) for task_id, args in args_of.items()]
        tasks += others
        if self.owed:
            self.take_backs += 1
        message = RunTasks(
            tasks=tasks,
            functions=functions_of(function) if self.is_first else {},
            isolation="worker",
            taken_back=self.owed,
            heard=self.heard,
            token=TOKEN,
        )
        self.owed = 0
        await self.process.send(message, (self.read_fd, self.return_fd) if self.is_first else ())
        self.is_first = False
        self.unclaimed += [task.task_id for task in tasks]
        os.write(self.write_fd, bytes([self.take_backs % 256]) * len(tasks))

    def take_back(self, count: int) -> list[str]:
        """Take back up to that many; return which."""
        try:
            taken = len(os.read(self.read_fd, count))
        except BlockingIOError:
            taken = 0
        self.owed += taken
        return [self.unclaimed.pop() for _ in range(taken)]

    async def ended(self) -> TaskEnded | TaskReturned:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.endings:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.0002)
            said = self.received()
            try:
                self.endings += self.returns.feed(os.read(self.returns_fd, 1 << 16))
            except BlockingIOError:
                pass
            self.endings += said
        return self.endings.pop(0)

    def received(self) -> list[TaskEnded]:
        try:
            messages = self.process.reader.feed(self.process.socket.recv(1 << 16))
        except BlockingIOError:
            return []
        self.heard += len(messages)
        return [message for message in messages if isinstance(message, TaskEnded)]

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd, self.returns_fd, self.return_fd):
            os.close(fd)


def test_a_worker_process_runs_many_tasks_in_order_and_keeps_its_state(tmp_path: Path) -> None:
    def task(number: int) -> tuple[int, int, str]:
        import sys

        count = sys.__dict__["_zy_count"] = sys.__dict__.get("_zy_count", 0) + 1
        return number, count, os.environ["PALPABLE_TASK_ID"]

    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        await worker.send(task, {f"t{n}": (n,) for n in range(5)})
        await worker.send(task, {f"t{n}": (n,) for n in range(5, 10)})
        for n in range(10):
            ended = await worker.ended()
            assert (ended.task_id, ended.is_successful) == (f"t{n}", True)
            assert loads(ended.payload) == (n, n + 1, f"t{n}")
            assert ended.peak_memory_bytes > 1 << 20
        worker.process.socket.close()
        assert (await server.exit_of(worker.process)).exit_status == 0
        worker.close()

    serve(tmp_path, test)


def test_a_task_that_was_taken_back_is_not_run_and_every_other_is_run_once(tmp_path: Path) -> None:
    def task(number: int) -> int:
        if number % 3 == 0:
            time.sleep(0.0005)
        return number

    async def test(server: FakeServer) -> None:
        rng = random.Random(7)
        worker = FakeWorker(await server.take())
        taken_back: list[str] = []
        sent: list[str] = []
        ended: list[str] = []

        async def collect() -> None:
            while True:
                ended.append((await worker.ended()).task_id)
                server.changed.set()

        collecting = asyncio.ensure_future(collect())
        for _ in range(400):
            args_of = {f"t{number}": (number,) for number in range(len(sent), len(sent) + rng.randint(1, 6))}
            sent += args_of
            await worker.send(task, args_of)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice([0, 0, 0.0002, 0.001]))
            if rng.random() < 0.7:
                taken_back += worker.take_back(rng.randint(1, 5))
        await server.until(lambda: len(ended) == len(sent) - len(taken_back))
        await asyncio.sleep(0.05)
        assert not set(ended) & set(taken_back)
        assert sorted(ended + taken_back) == sorted(sent)
        assert ended == sorted(ended, key=lambda task_id: int(task_id[1:]))
        assert taken_back and ended
        collecting.cancel()
        worker.close()

    serve(tmp_path, test)


def test_the_output_of_each_task_can_be_told_apart(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        await worker.send(lambda text: print(text, end=""), {f"t{n}": ("x" * n,) for n in range(4)})
        spans = [((ended := await worker.ended()).output_from, ended.output_to) for _ in range(4)]
        assert spans == [(0, 0), (0, 1), (1, 3), (3, 6)]
        os.truncate(worker.process.spool, 0)
        await worker.send(lambda text: print(text, end=""), {"t4": ("xy",)})
        worker.close()

    serve(tmp_path, test)


def test_a_crash_and_sys_exit_end_the_worker_process_without_an_answer(tmp_path: Path) -> None:
    async def test(server: FakeServer) -> None:
        for end, status in ((os._exit, 5), (_exit, 5)):
            worker = FakeWorker(await server.take())
            await worker.send(end, {"t0": (5,), "t1": (5,)})
            assert await worker.process.receive() is None
            assert (await server.exit_of(worker.process)).exit_status == status
            assert worker.take_back(10) == ["t1"]
            worker.close()

    serve(tmp_path, test)


def _exit(code: int) -> None:
    raise SystemExit(code)


def test_a_failure_and_the_cpu_time_belong_to_their_task(tmp_path: Path) -> None:
    def task(seconds: float) -> None:
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass
        if seconds:
            raise ValueError(seconds)

    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        await worker.send(task, {"t0": (0.0,), "t1": (0.05,), "t2": (0.0,)})
        first, second, third = [await worker.ended() for _ in range(3)]
        assert (first.is_successful, second.is_successful, third.is_successful) == (True, False, True)
        assert second.error_type == "ValueError"
        assert second.error_bases == ("builtins.ValueError", "builtins.Exception", "builtins.BaseException")
        assert first.error_bases == ()
        assert second.cpu_seconds >= 0.05 > max(first.cpu_seconds, third.cpu_seconds)
        worker.close()

    serve(tmp_path, test)


def test_every_task_finds_its_own_variables_whatever_the_last_one_did_to_them(tmp_path: Path) -> None:
    names = ["PALPABLE_TASK_ID", "PALPABLE_ATTEMPT", "PALPABLE_TASK_TOKEN"]

    def task(number: int) -> tuple[list[str], str]:
        import subprocess
        import sys

        own = [os.environ[name] for name in names]
        program = f"import os; print([os.environ.get(name) for name in {names}])"
        seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for name in names[number:]:
            os.environ[name] = "changed"
        if not number:
            os.unsetenv(names[0])
            del os.environ[names[2]]
        return own, seen.strip()

    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        await worker.send(task, {f"t{number}": (number,) for number in range(4)})
        for number in range(4):
            ended = await worker.ended()
            assert ended.is_successful and ended.payload is not None
            own = [f"t{number}", "1", TOKEN]
            assert loads(ended.payload) == (own, str(own))
        worker.close()

    serve(tmp_path, test)


def test_a_task_without_its_function_fails_alone_before_and_after_others(tmp_path: Path) -> None:
    def task(number: int) -> int:
        return number

    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        await worker.send(task, {}, [TaskOrder("lost", 1, "call", "", dumps_call((1,), {}))])
        await worker.send(task, {"t1": (1,), "t2": (2,)}, [TaskOrder("again", 1, "call", "", dumps_call((1,), {}))])
        endings = [await worker.ended() for _ in range(4)]
        assert [(ended.task_id, ended.is_successful) for ended in endings] == [
            ("lost", False),
            ("t1", True),
            ("t2", True),
            ("again", False),
        ]
        assert {ended.error_type for ended in endings if not ended.is_successful} == {"RuntimeError"}
        worker.close()

    serve(tmp_path, test)


def test_what_a_thread_does_between_two_tasks_is_charged_to_neither(tmp_path: Path) -> None:
    def task(path: str) -> None:
        import threading

        def work() -> None:
            until = time.thread_time() + 0.2
            while time.thread_time() < until:
                pass
            open(path, "w").close()

        if path:
            threading.Thread(target=work).start()

    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        done = tmp_path / "done"
        await worker.send(task, {"t0": (str(done),)})
        first = await worker.ended()
        deadline = time.monotonic() + 20
        while not done.exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert done.exists()
        await asyncio.sleep(0.05)
        await worker.send(task, {"t1": ("",)})
        assert max(first.cpu_seconds, (await worker.ended()).cpu_seconds) < 0.1
        worker.close()

    serve(tmp_path, test)


def test_after_a_word_by_the_socket_the_pipe_is_used_again_once_that_was_heard(tmp_path: Path) -> None:
    def task(number: int) -> int:
        return 1 // number

    async def test(server: FakeServer) -> None:
        worker = FakeWorker(await server.take())
        ways = []
        for args_of in ({"t0": (1,), "t1": (1,)}, {"t2": (0,), "t3": (1,)}, {"t4": (1,)}):
            await worker.send(task, args_of)
            for task_id in args_of:
                ended = await worker.ended()
                assert (ended.task_id, ended.is_successful) == (task_id, args_of[task_id] == (1,))
                ways.append(type(ended))
        assert ways == [TaskReturned, TaskReturned, TaskEnded, TaskEnded, TaskReturned]
        worker.close()

    serve(tmp_path, test)
