"""The server at work: listens, speaks with clients, and owns the manager.

Runs in: the server process, which is executed afresh by `Server.start`, or is the caller's own (`Server.serve`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

import palpable
from palpable._store.store import Store, StoreBroken
from palpable._zygote.leftovers import end_leftovers
from palpable._zygote.os_calls import become_subreaper
from palpable._zygote.settings import ZygoteSettings
from palpable.servants.client_session import Admission, ClientSession
from palpable.servants.listener import file_at, open_listener, tls_context
from palpable.servants.log_files import LogFiles
from palpable.servants.manager import Manager
from palpable.servants.open_files import allow_many_files
from palpable.servants.requests import Requests
from palpable.servants.settings import ServerSettings
from palpable.servants.submissions import Submissions

logger = logging.getLogger("palpable.server")

TLS_HANDSHAKE_SECONDS = 15.0
"""A TLS handshake takes milliseconds, but a thousand clients may come at once. Who takes longer is cut off."""


class ServerLoop:
    """One server, from listening to the last process gone.

    Args:
        settings: everything it needs to know.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.address: tuple[str, int] | str = settings.address
        self.recovered: dict[str, int] = {}
        """By what became of them: how many tasks an earlier start on the same store had left."""
        self.has_listened = False
        """Whether clients could connect at some time."""
        self._stopping = asyncio.Event()
        self._drain_until = math.inf
        self._store: Store | None = None
        self._failure = ""
        self._started_at = time.time()
        self._zygote_number = 0

    async def run(
        self, on_listening: Callable[[Any], None], on_recovering: Callable[[int], None] = lambda count: None
    ) -> None:
        """Serve until `stop`. Steps: open the store, listen, start processes, recover, serve, drain, end all, release.

        Args:
            on_listening: called with the address once clients can connect.
            on_recovering: called now and then with the number of tasks that were read from the store.

        Raises:
            CannotListen: it cannot listen there.
            OSError: it cannot write its folders, or what a server before it left behind does not end.
            StoreBroken: it can't open its store, or could not go on writing it.
        """
        logs = LogFiles(self.settings.logging_folder)
        try:
            try:
                self._open_store()
                await self._run(on_listening, on_recovering)
            finally:
                if self._store is not None:
                    self._store.close()
        finally:
            logs.close()
        if self._failure:
            raise StoreBroken(f"the server has ended, since it can't write to its store any more: {self._failure}")

    def _open_store(self) -> None:
        """Open the store, and end what the last server on it left behind: its tasks are about to run again."""
        if self.settings.store_path is None:
            return
        from palpable._store.sqlite_store import SqliteStore

        self._store = SqliteStore(self.settings.store_path)
        self.settings.server_id = self._store.store_id
        count = end_leftovers(self._store.store_id)
        if count:
            logger.warning("ended %d processes that the server before this one had left behind", count)

    async def _run(self, on_listening: Callable[[Any], None], on_recovering: Callable[[int], None]) -> None:
        settings = self.settings
        become_subreaper()
        self._task_files = allow_many_files()
        context = tls_context(settings)
        task_token = secrets.token_hex(16)
        requests = Requests(self._describe, self.stop)
        manager = Manager(
            settings,
            self._zygote_settings,
            requests.handle,
            requests.disconnected,
            task_token,
            self._store,
            on_broken=self._fail,
        )
        requests.manager, requests.submissions = manager, Submissions(manager)
        admission = Admission(settings.authkey, self._info(), task_token, requests, settings.max_payload_bytes)
        listener = open_listener(settings)
        socket_file = file_at(settings.address)
        self.address = settings.address if settings.family == "AF_UNIX" else listener.getsockname()[:2]
        try:
            try:
                manager.start()
                await manager.start_processes()
                await manager.recover(on_recovering, self._stopping.is_set)
                self.recovered = manager.recovered
                if self.recovered:
                    logger.info("recovered from %s: %s", settings.store_path, self.recovered)
                server: asyncio.AbstractServer | None = None
                if self._stopping.is_set():  # it knows a part of its tasks only, so it must not speak of them
                    logger.info("told to stop before it listened; what was not taken up is left to the next server")
                else:
                    server = await self._listen(asyncio.get_running_loop(), listener, admission, context)
                    logger.info("listening on %s with %d workers", self.address, settings.num_workers)
                    self.has_listened = True
                    on_listening(self.address)
                    await self._stopping.wait()
                await self._drain(manager)
            finally:
                # While we still listen: so long the path is ours, unless somebody removed it. Once the listener is
                # closed, the next server may put its own socket there, though our tasks have yet to end.
                if socket_file is not None and file_at(settings.address) == socket_file:
                    with contextlib.suppress(OSError):
                        os.unlink(str(settings.address))
            logger.info("stopping")
            manager.stop()
            if server is not None:
                server.close()
            await manager.wait_ended()
            requests.hurry_readings()
            await self._close_sessions(admission)
        finally:
            listener.close()
            manager.close()
            await manager.close_store()
            logger.info("ended")

    async def _drain(self, manager: Manager) -> None:
        """Let what runs end, until `stop` says that the time is over."""
        if self._drain_until > time.monotonic():
            logger.info("draining: what runs may end")
            manager.is_ending = True
            manager.drain()
        while manager.engine.is_busy and (left := self._drain_until - time.monotonic()) > 0:
            self._stopping.clear()
            finished = asyncio.ensure_future(manager.wait_not_busy())
            hurried = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((finished, hurried), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finished.cancel()
            hurried.cancel()

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, admission: Admission, context: Any
    ) -> asyncio.AbstractServer:
        listener.setblocking(False)
        seconds = None if context is None else TLS_HANDSHAKE_SECONDS

        def session() -> ClientSession:
            return ClientSession(admission)

        if self.settings.family == "AF_UNIX":
            return await loop.create_unix_server(session, sock=listener, ssl=context, ssl_handshake_timeout=seconds)
        return await loop.create_server(session, sock=listener, ssl=context, ssl_handshake_timeout=seconds)

    async def _close_sessions(self, admission: Admission) -> None:
        """Let what was sent go out, within a second, and close."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(admission.close_all(), 1.0)

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Ask for the end. May be called again: what comes first counts.

        Args:
            drain_seconds: let what runs end within this time.
        """
        self._drain_until = min(self._drain_until, time.monotonic() + drain_seconds)
        self._stopping.set()

    def on_signal(self) -> None:
        """SIGTERM: drain. Once more: hurry."""
        self.stop(0.0 if self._drain_until < math.inf else self.settings.drain_seconds)

    def _fail(self, error: Exception) -> None:
        """The store is broken. Nothing that happens from now on could be kept, so nothing may."""
        self._failure = str(error) if isinstance(error, StoreBroken) else repr(error)
        self.stop()

    def _zygote_settings(self, preload: list[str]) -> ZygoteSettings:
        self._zygote_number += 1
        return ZygoteSettings(
            name=f"z{self._zygote_number}",
            spool_folder=self.settings.spool_folder,
            sys_path=self.settings.sys_path,
            cwd=os.getcwd(),
            preload=preload,
            files_max=self._task_files,
        )

    def _info(self) -> dict[str, Any]:
        return {
            "server_id": self.settings.server_id,
            "num_workers": self.settings.num_workers,
            "isolation": self.settings.isolation,
            "is_durable": self._store is not None,
            "drain_seconds": self.settings.drain_seconds,
            "max_payload_bytes": self.settings.max_payload_bytes,
            "pid": os.getpid(),
            "version": palpable.__version__,
        }

    def _describe(self) -> dict[str, Any]:
        return {
            **self._info(),
            "address": self.address if isinstance(self.address, str) else list(self.address),
            "uptime_seconds": time.time() - self._started_at,
        }
