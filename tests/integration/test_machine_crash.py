"""A machine that stops at a random moment: what a server had said by then holds for the next one, on the files as they
were in that moment."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from palpable import Client, RunFunction, Server
from support.wait import wait_until

COPIES, TOLD_BETWEEN = 8, 40
CLIENTS = 3


class Told(NamedTuple):
    """What a client was told of a task."""

    task_id: str
    what: str
    """accepted; kept, taken: it ended with that value, which stays on the server or not; cancelled."""
    value: Any = None


def _token() -> bytes:
    """Another attempt would return something else."""
    return os.urandom(16)


class Clients:
    """Threads that use a server until told to stop, and note what they are told."""

    def __init__(self, server: Server) -> None:
        self.told: list[Told] = []
        self._server = server
        self._is_over = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        assert self._errors == []

    def wait_for_more(self) -> None:
        """Return when they were told so much more."""
        goal = len(self.told) + TOLD_BETWEEN
        wait_until(lambda: len(self.told) >= goal or self._errors, 60)

    def _work(self, seed: int) -> None:
        rng = random.Random(seed)
        try:
            with self._server.client() as client:
                while not self._is_over.is_set():
                    rng.choice((self._keep, self._take, self._map, self._cancel))(client)
        except BaseException as error:
            self._errors.append(error)

    def _submit(self, client: Client, function: Any, *arguments: Any) -> str:
        task_id = client.run_procedure(RunFunction(function, *arguments), 0).task_id
        assert client.query_result(task_id, keep=True) is not None  # the answer says that it is accepted
        self.told.append(Told(task_id, "accepted"))
        return task_id

    def _keep(self, client: Client) -> None:
        task_id = self._submit(client, _token)
        self.told.append(Told(task_id, "kept", client.result(task_id, 60)))

    def _take(self, client: Client) -> None:
        future = client.submit(_token)
        self.told.append(Told(future.task_id, "taken", future.result(timeout=60)))

    def _map(self, client: Client) -> None:
        futures = [client.options(isolation="worker").submit(_token) for _ in range(10)]
        self.told.extend([Told(future.task_id, "taken", future.result(timeout=60)) for future in futures])

    def _cancel(self, client: Client) -> None:
        task_id = self._submit(client, time.sleep, 0.05)
        if client.cancel(task_id):
            self.told.append(Told(task_id, "cancelled"))


@contextlib.contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """Hold the server still, in the middle of whatever it does."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def _check(client: Client, told: list[Told]) -> None:
    """What was told before holds now."""
    infos = {info.task_id: info for info in client.tasks(limit=1_000_000)}
    for task_id, what, value in told:
        assert task_id in infos, f"a task is lost of which was told that it is {what}"
        if what == "accepted":
            continue
        assert infos[task_id].state == ("cancelled" if what == "cancelled" else "succeeded")
        if what == "kept":
            assert client.result(task_id, 0) == value
        elif what == "taken":  # unless the acknowledgement came before the end, too
            result = client.query_result(task_id, keep=True)
            assert result is None or result.data == value
    wait_until(lambda: not client.tasks(("ready", "running", "scheduled", "retrying")), 60)


@pytest.mark.slow
@pytest.mark.timeout(140)  # it starts a server on each of the copies, one after the other: 25 to 45 s of work
def test_what_clients_were_told_holds_on_the_files_as_they_were_in_that_moment(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    copies: list[tuple[Path, list[Told]]] = []
    with Server(num_workers=2, store=path) as server, Clients(server) as clients:
        for number in range(COPIES):
            clients.wait_for_more()
            with _stopped(server):
                told = clients.told.copy()
                copy = tmp_path / f"copy {number}"
                copy.mkdir()
                for name in ("jobs.db", "jobs.db-wal"):
                    shutil.copy(path.with_name(name), copy)
            copies.append((copy / path.name, told))
    # Only now: a server ends what earlier ones on its store have left, and these are the same store.
    for copy, told in copies:
        with Server(num_workers=2, store=copy) as server, server.client() as client:
            _check(client, told)
    assert {one.what for _, told in copies for one in told} == {"accepted", "kept", "taken", "cancelled"}
