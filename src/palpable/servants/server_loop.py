"""The server at work: listens, speaks with clients, and owns the manager.

Runs in: the server process, which is executed afresh by `Server.start`, or is the caller's own (`Server.serve`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from typing import Any

import palpable
from palpable._zygote.os_calls import become_subreaper
from palpable._zygote.settings import ZygoteSettings
from palpable.servants.client_session import Admission, ClientSession
from palpable.servants.listener import open_listener, tls_context
from palpable.servants.log_files import LogFiles
from palpable.servants.manager import Manager
from palpable.servants.requests import Requests
from palpable.servants.settings import ServerSettings

logger = logging.getLogger("palpable.server")


class ServerLoop:
    """One server, from listening to the last process gone.

    Args:
        settings: everything it needs to know.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.address: tuple[str, int] | str = settings.address
        self._stopping = asyncio.Event()
        self._started_at = time.time()
        self._zygote_number = 0

    async def run(self, on_listening: Any = None) -> None:
        """Serve until `stop`. Steps: listen, start processes, serve, end all tasks, release.

        Args:
            on_listening: called with the address once clients can connect.

        Raises:
            OSError: it cannot listen there, or cannot write its folders.
        """
        logs = LogFiles(self.settings.logging_folder)
        try:
            await self._run(on_listening)
        finally:
            logs.close()

    async def _run(self, on_listening: Any) -> None:
        settings = self.settings
        become_subreaper()
        context = tls_context(settings)
        listener = open_listener(settings)
        self.address = settings.address if settings.family == "AF_UNIX" else listener.getsockname()[:2]
        task_token = secrets.token_hex(16)
        requests = Requests(self._describe, self.stop)
        manager = Manager(settings, self._zygote_settings, requests.handle, task_token)
        requests.manager = manager
        admission = Admission(settings.authkey, self._info(), task_token, requests, settings.max_payload_bytes)
        try:
            try:
                manager.start()
                await manager.start_processes()
                loop = asyncio.get_running_loop()
                server = await self._listen(loop, listener, admission, context)
                logger.info("listening on %s with %d workers", self.address, settings.num_workers)
                if on_listening is not None:
                    on_listening(self.address)
                await self._stopping.wait()
            finally:
                # While we still listen: so long the path is ours. Once the listener is closed, the next server may put
                # its own socket there, though our tasks have yet to end.
                if settings.family == "AF_UNIX":
                    with contextlib.suppress(OSError):
                        os.unlink(str(settings.address))
            logger.info("stopping")
            manager.stop()
            server.close()
            await manager.wait_ended()
            await self._close_sessions(admission)
        finally:
            listener.close()
            manager.close()
            logger.info("ended")

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, admission: Admission, context: Any
    ) -> asyncio.AbstractServer:
        listener.setblocking(False)
        if self.settings.family == "AF_UNIX":
            return await loop.create_unix_server(lambda: ClientSession(admission), sock=listener, ssl=context)
        return await loop.create_server(lambda: ClientSession(admission), sock=listener, ssl=context)

    async def _close_sessions(self, admission: Admission) -> None:
        """Let what was sent go out, within a second, and close."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(admission.close_all(), 1.0)

    def stop(self) -> None:
        """Ask for the end; safe to call twice."""
        self._stopping.set()

    def _zygote_settings(self, preload: list[str]) -> ZygoteSettings:
        self._zygote_number += 1
        return ZygoteSettings(
            name=f"z{self._zygote_number}",
            spool_folder=self.settings.spool_folder,
            sys_path=self.settings.sys_path,
            cwd=os.getcwd(),
            preload=preload,
        )

    def _info(self) -> dict[str, Any]:
        return {
            "server_id": self.settings.server_id,
            "num_workers": self.settings.num_workers,
            "isolation": self.settings.isolation,
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
