"""The keeper of the server: starts it, knows its processes, and starts it again on the same store when it ended.

Runs in: the storm.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from palpable import Server
from palpable.units.task_exceptions import ServerStartError
from stress.storm.event_log import EventLog
from stress.storm.place import Place

NUM_WORKERS = (1, 2, 3, 3, 4)
"""Each start draws one: with a single worker tasks that wait for others go on only because their slot is free."""
DRAIN_SECONDS = 1.0
GRACE_SECONDS = 0.5
TRY_AGAIN_SECONDS = 0.1
START_SECONDS = 60.0
END_SECONDS = 30.0
"""A server that was told to stop and drains for a second has ended within this time."""


class ServerKeeper:
    """One server at a time, always at the same address and on the same store.

    Args:
        folder: of the storm.
        place: where it listens.
        store_path: the file of the store.
        log: where its starts and ends are noted.
        seed: of the storm.
    """

    def __init__(self, folder: Path, place: Place, store_path: Path, log: EventLog, seed: int) -> None:
        self.place = place
        self.log = log
        self._authkey = (folder / "authkey").read_bytes()
        self._logging_folder = folder / "logs"
        self._store_path = store_path
        self._rng = random.Random(seed)
        self.num_workers = 0
        self._server: Server | None = None

    # --- the processes ------------------------------------------------------------------------------------------------

    @property
    def process(self) -> psutil.Process | None:
        """The server process; also one that is starting."""
        for child in psutil.Process().children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE and "server_process" in str(child.cmdline()):
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    def zygotes(self) -> list[psutil.Process]:
        """Return the children of the server."""
        return _living_children(self.process)

    def task_processes(self) -> list[psutil.Process]:
        """Return the children of its zygotes, busy and idle ones, and strays."""
        return [child for zygote in self.zygotes() for child in _living_children(zygote)]

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self, num_workers: int | None = None) -> None:
        """Start the server; return when it listens. Where the disk is full, try until there is room.

        Args:
            num_workers: None: draw it.

        Raises:
            ServerStartError: it could not be started.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._server = self._make_server(num_workers)
            try:
                self._server.start()
            except ServerStartError as error:
                self._server.close()
                self.log.write("start failed", why=str(error))
                if time.monotonic() > deadline:
                    raise
                time.sleep(TRY_AGAIN_SECONDS)
                continue
            self.log.write("server up", pid=self._server.pid, recovered=self._server.recovered)
            return

    def start_and_kill(self, after_seconds: float) -> int | None:
        """Start the server and kill it so long afterwards, perhaps before it listens; return its pid."""
        server = self._server = self._make_server(None)
        errors: list[BaseException] = []

        def start() -> None:
            try:
                server.start()
            except ServerStartError as error:
                errors.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        time.sleep(after_seconds)
        process = self.process
        if process is not None:
            process.send_signal(signal.SIGKILL)
        thread.join()
        if not errors and process is None:
            process = self.process
            if process is not None:
                process.send_signal(signal.SIGKILL)
        self.bury()
        return process.pid if process is not None else None

    def end(self, signals: int = 1, kill_after_seconds: float | None = None) -> tuple[int | None, bool]:
        """Tell the server to stop, by so many SIGTERMs; return its exit code, and whether it was killed as planned.

        Args:
            kill_after_seconds: kill it, if it has not ended by then. None: wait longer than it may take.
        """
        process, server = self.process, self._server
        assert process is not None and server is not None
        for _ in range(signals):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
                process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        deadline = time.monotonic() + (END_SECONDS if kill_after_seconds is None else kill_after_seconds)
        while server.pid is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        code = server._process.poll() if server._process is not None else None
        if code is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.bury()
        return code, code is None and kill_after_seconds is not None

    def bury(self) -> None:
        """The server process has ended or is about to: wait for that, and remove what was made for it."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _make_server(self, num_workers: int | None) -> Server:
        self.num_workers = num_workers or self._rng.choice(NUM_WORKERS)
        return Server(
            self._logging_folder,
            self.place.address,
            authkey=self._authkey,
            num_workers=self.num_workers,
            store=self._store_path,
            drain_seconds=DRAIN_SECONDS,
            kill_grace_seconds=GRACE_SECONDS,
            max_tasks_per_process=40,
            **self.place.server_options,
        )


def _living_children(process: psutil.Process | None) -> list[psutil.Process]:
    found: list[Any] = []
    try:
        children = process.children() if process is not None else []
        for child in children:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    except psutil.NoSuchProcess:
        pass
    return found
