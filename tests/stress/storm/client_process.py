"""A client of the storm: a process that works until the file `finish` is there, and may be killed at any moment.

    python -m stress.storm.client_process FOLDER NAME SEED PARENT_PID PLACE ...

It notes everything it asks for and is told. By chance its client connects again by itself when its connection breaks;
else it makes a new client and asks by task id for what is unanswered, or submits it again under its key. So does the
next process of its name when it was killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from palpable import Client
from palpable._zygote.os_calls import PR_SET_PDEATHSIG
from palpable.units.task_exceptions import ServerUnreachable
from stress.storm import async_actions
from stress.storm.client_actions import Actions
from stress.storm.client_record import ClientRecord, Unanswered
from stress.storm.job import Job
from stress.storm.place import Place, place_of
from stress.storm.workload import Wish

THREADS = 2
DIAL_SECONDS = 0.05
"""How often it tries to connect while there is no server."""
GIVE_UP_SECONDS = 120.0
RECONNECT_SECONDS = 60.0


class ClientProcess:
    """One client, its threads, and the connections it makes."""

    def __init__(self, folder: Path, name: str, seed: str, places: list[Place]) -> None:
        self._folder = folder
        self._name = name
        self._rng = random.Random(seed)
        self._places = places
        self._authkey = (folder / "authkey").read_bytes()
        self._reconnects = self._rng.random() < 0.6
        self._record = ClientRecord(folder / f"client-{name}.jsonl", name, reconnects=self._reconnects)
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def run(self) -> int:
        """Work; return the exit code."""
        self._record.log.write("born", reconnects=self._reconnects)
        in_asyncio = threading.Thread(target=self._work_in_asyncio)
        in_asyncio.start()
        try:
            return self._run()
        finally:
            in_asyncio.join()
            if self._failures:
                raise self._failures[0]

    def _run(self) -> int:
        while not self._failures:
            with self._make_client() as client:
                try:
                    self._settle(client)
                    if not self._is_over:
                        self._work(client)
                    else:
                        self._record.log.write("done")
                        return 0
                except ServerUnreachable as error:
                    self._record.log.write("disconnected", why=str(error))
        return 1

    def _work_in_asyncio(self) -> None:
        """Use the server by an `AsyncClient`, beside the others."""
        rng = random.Random(self._rng.random())
        work = async_actions.work(self._folder, self._name, rng, rng.choice(self._places), lambda: self._is_over)
        try:
            asyncio.run(work)
        except BaseException as error:
            self._record.log.write("client failed", why=repr(error))
            self._failures.append(error)

    @property
    def _is_over(self) -> bool:
        return bool(self._failures) or (self._folder / "finish").exists()

    def _make_client(self) -> Client:
        """Return a client that is connected."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        reconnect_seconds = RECONNECT_SECONDS if self._reconnects else 0.0
        while True:
            client = self._rng.choice(self._places).client(self._authkey, reconnect_seconds=reconnect_seconds)
            try:
                client.get_status()
                return client
            except ServerUnreachable:
                client.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(DIAL_SECONDS)

    def _settle(self, client: Client) -> None:
        """Ask for everything that is unanswered."""
        actions = Actions(client, self._record, self._folder, self._rng)
        for one in self._record.unanswered():
            if one.key:
                actions.use_this_key(_wish_of(one, self._folder))
            else:
                actions.settle(one.label, one.task_id)

    def _work(self, client: Client) -> None:
        """Work in several threads over one connection, until it breaks or the storm is over."""
        broken: list[ServerUnreachable] = []

        def work(seed: float) -> None:
            actions = Actions(client, self._record, self._folder, random.Random(seed))
            try:
                while not self._is_over and not broken and not self._failures:
                    actions.act()
            except ServerUnreachable as error:
                broken.append(error)
            except BaseException as error:
                self._record.log.write("client failed", why=repr(error))
                self._failures.append(error)

        threads = [threading.Thread(target=work, args=(self._rng.random(),)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if broken:
            raise broken[0]


def _wish_of(one: Unanswered, folder: Path) -> Wish:
    options = dict(one.event["options"])
    job = Job(str(folder), one.label, options.pop("kind"), options.pop("seconds"))
    return Wish(job, options)


def main() -> int:
    """Run a client as the command line says."""
    folder, name, seed, parent, *words = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a storm that was killed tells nobody to finish
    if os.getppid() != int(parent):
        return 1
    return ClientProcess(Path(folder), name, seed, [place_of(word) for word in words]).run()


if __name__ == "__main__":
    raise SystemExit(main())
