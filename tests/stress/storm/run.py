"""One storm, from the first server to the report.

Runs in: the storm. Steps: make the folders, start all, rage, let the clients finish, ask once more, end all, look for
what is left, check.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from stress.storm import aftermath
from stress.storm.checker import check
from stress.storm.client_crew import ClientCrew
from stress.storm.event_log import EventLog
from stress.storm.faults import Theatre
from stress.storm.finding import Finding
from stress.storm.history import read_history
from stress.storm.nemesis import Nemesis
from stress.storm.place import new_place
from stress.storm.report import Run, make_report
from stress.storm.server_keeper import ServerKeeper
from stress.storm.small_disk import SmallDisk
from support.cutting_proxy import CuttingProxy


class Storm:
    """A storm in a folder of its own.

    Args:
        folder: empty; the records stay there.
        kills: so many, unless the time is over before.
        most_seconds: how long the nemesis rages at most.
        mean_pause_seconds: between two faults.
        over: how clients connect, one of `place.KINDS`.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        kills: int,
        *,
        clients: int,
        most_seconds: float,
        mean_pause_seconds: float,
        over: str,
    ) -> None:
        self.folder = folder
        self._place = new_place(over, folder)
        self._seed, self._kills, self._clients = seed, kills, clients
        self._most_seconds, self._mean_pause_seconds = most_seconds, mean_pause_seconds
        self._mark = secrets.token_hex(8)
        self._authkey = secrets.token_bytes(32)

    def run(self) -> tuple[str, list[Finding]]:
        """Return the report and the findings. Whatever was started is ended, also after an error."""
        self._make_folders()
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            disk = SmallDisk(self.folder / "disk")
            stack.callback(disk.close)
            log = EventLog(self.folder / "storm.jsonl")
            stack.callback(log.close)
            store_path = disk.folder / "store.db"
            keeper = ServerKeeper(self.folder, self._place, store_path, log, self._seed)
            stack.callback(self._end_for_good, keeper)
            keeper.start()
            proxy = stack.enter_context(CuttingProxy(self.folder, self._place.address))
            places = [self._place, self._place._replace(address=proxy.address)]
            crew = ClientCrew(self.folder, self._seed, places, self._clients)
            stack.callback(crew.close)
            nemesis = Nemesis(Theatre(keeper, crew, proxy, disk, log), self._seed, self._mean_pause_seconds)
            crew.start()
            nemesis.rage(self._kills, self._most_seconds)
            seconds = time.monotonic() - began
            for what in [*crew.finish(), *self._ask(keeper, store_path), *self._end(keeper, store_path)]:
                log.write("aftermath", what=what)
            history = read_history(self.folder, store_path)
            left_out = [f"fill disk ({disk.why_not})"] if disk.why_not else []
            run = Run(self._seed, nemesis.kills, nemesis.struck, self._clients, self._place.kind, seconds, left_out)
        findings = check(history)
        return make_report(run, history, findings), findings

    def _make_folders(self) -> None:
        for name in ("locks", "logs", "tmp"):
            (self.folder / name).mkdir()
        (self.folder / "authkey").write_bytes(self._authkey)
        os.environ[aftermath.STORM_VARIABLE] = self._mark
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "tmp")

    def _ask(self, keeper: ServerKeeper, store_path: Path) -> list[str]:
        """The clients are done: ask the server about everything."""
        with self._place.client(self._authkey) as client:
            problems = list(aftermath.wait_for_the_last(client))
            counts = aftermath.ask_for_everything(client, self.folder)
            with closing(sqlite3.connect(f"file:{store_path}?mode=ro", uri=True)) as connection:
                stored = dict(connection.execute("SELECT state, count(*) FROM states GROUP BY state"))
        if counts != stored:
            problems.append(f"the server counts {counts}, the store {stored}")
        return problems

    def _end(self, keeper: ServerKeeper, store_path: Path) -> list[str]:
        """End the server, and look for what is left."""
        problems = list(aftermath.compare_with_a_fresh_server(keeper, self.folder))
        code, _ = keeper.end()
        if code != 0:
            problems.append(f"the last server ended with exit code {code}")
        with closing(sqlite3.connect(f"file:{store_path}?mode=ro", uri=True)) as connection:
            ((store_id,),) = connection.execute("SELECT value FROM meta WHERE key = 'store_id'")
        marks = [aftermath.server_mark(store_id), f"{aftermath.STORM_VARIABLE}={self._mark}"]
        problems += aftermath.find_strays(marks)
        problems += aftermath.find_files(self.folder / "tmp", self._place.address)
        return problems

    def _end_for_good(self, keeper: ServerKeeper) -> None:
        if keeper.process is not None:
            keeper.end(signals=2)
        keeper.bury()
