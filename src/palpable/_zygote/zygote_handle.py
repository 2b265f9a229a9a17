"""The server's handle on a zygote: starts it, gives it orders, hears from it.

Runs in: the server, on its event loop (asyncio's own or uvloop). Speaks with: the zygote, over the control socket,
without ever blocking.
"""

from __future__ import annotations

import array
import asyncio
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType

import msgspec

import palpable
from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.messages import (
    EndProcess,
    FromZygote,
    KeepAlive,
    Message,
    PrepareModules,
    ProcessesExited,
    ProcessesForked,
    ProcessExit,
    ProcessReplaced,
    ZygoteReady,
)
from palpable._zygote.replacement import read_replacement
from palpable._zygote.settings import ZygoteSettings
from palpable._zygote.strays import MARK, children, has_mark, kill_strays

READ_BYTES = 1 << 16
MAX_FDS_PER_MESSAGE = 253
"""The kernel's limit (SCM_MAX_FD)."""
PAUSE_SECONDS = 0.2
"""Until what a lack of file descriptors has kept from being done is tried again."""

logger = logging.getLogger("palpable.server")

ForkedProcess = tuple[int, socket.socket, str]
"""Pid, the server's end of its socket pair (non-blocking), the path of its spool file."""


class ZygoteHandle:
    """One zygote and its task processes, seen from the server.

    The callbacks run on the event loop. `on_died` is called once, last of all, when the zygote is gone and reaped,
    however it came to that, with all its task processes and whatever they had started. If it was killed, its task
    processes die by the kernel's parent-death signal, and what they leave comes to the server as the next subreaper
    above, which has to be one (`os_calls.become_subreaper`); it is killed here.

    Args:
        settings: for the zygote.
        on_ready: the imports are done.
        on_forked: there are new idle task processes.
        on_exited: task processes have ended, and whatever they had started.
        on_died: the zygote is gone.
    """

    def __init__(
        self,
        settings: ZygoteSettings,
        *,
        on_ready: Callable[[ZygoteReady], None],
        on_forked: Callable[[list[ForkedProcess]], None],
        on_exited: Callable[[list[ProcessExit]], None],
        on_died: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._on_forked = on_forked
        self._on_exited = on_exited
        self._on_died = on_died
        self._reader: FrameReader[FromZygote] = FrameReader(FromZygote)
        self._received_fds: deque[int] = deque()
        self._unsent = bytearray()
        self._ready: ZygoteReady | None = None
        self._ready_at = math.inf
        self._process: subprocess.Popen[bytes] | None = None
        self._has_died = False
        self._alive: dict[int, str] = {}
        """The paths of the spool files of all task processes, by pid."""
        self._mark = ""

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the zygote. To be called once, on the event loop.

        Args:
            environment: of the zygote and its tasks; this process's own if None. Authkeys are left out.

        Raises:
            OSError: the system has no room for it now; nothing is left of it.
        """
        self._loop = asyncio.get_running_loop()
        self._died: asyncio.Future[None] = self._loop.create_future()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control.setblocking(False)
        program = os.path.join(os.path.dirname(os.path.realpath(__file__)), "__main__.py")
        folders = {_package_folder(palpable), _package_folder(msgspec)}
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
        environment = os.environ if environment is None else environment
        kept = {name: value for name, value in environment.items() if not name.startswith("PALPABLE_AUTHKEY")}
        self._mark = f"{os.getpid()}-{self._settings.name}"
        try:
            process = subprocess.Popen(
                [sys.executable, *flags, "-P", program, str(theirs.fileno()), "-1", *sorted(folders)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is for the server alone
                env={**kept, MARK: self._mark},
            )
            try:
                self._pidfd = os.pidfd_open(process.pid)
            except BaseException:
                process.kill()
                process.wait()
                raise
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self._process = process
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(self._control, self._on_readable)
        self._send(self._settings)

    @property
    def pid(self) -> int | None:
        """The zygote's pid; None before it was started."""
        return self._process.pid if self._process else None

    @property
    def served_seconds(self) -> float:
        """How long ago its imports were done, so that it could fork."""
        return time.monotonic() - self._ready_at

    def is_stale(self) -> bool:
        """Whether a file of a preloaded module has changed since; not of installed modules. Costs a `stat` each."""
        if self._ready is None:
            return False
        for path, changed_at in self._ready.source_files.items():
            try:
                if os.stat(path).st_mtime_ns != changed_at:
                    return True
            except OSError:
                return True
        return False

    def keep_alive(self, count: int) -> None:
        """Have this many task processes kept alive, idle and busy ones together. Never blocks."""
        self._send(KeepAlive(count=count))

    def prepare_modules(self, modules: list[str]) -> None:
        """Have the zygote make these ready for its task processes (see `prepared_modules`). Never blocks."""
        self._send(PrepareModules(modules=modules))

    def end_process(self, pid: int, grace_seconds: float = 0.0) -> None:
        """End a task process and its whole tree. Never blocks; `on_exited` tells when it is done."""
        self._send(EndProcess(pid=pid, grace_seconds=grace_seconds))

    def close(self) -> None:
        """Have the zygote kill all its task processes and exit; `on_died` tells when it is done. Safe to call twice."""
        if self._process is None or self._has_died:
            return
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the zygote at once; its task processes die with it. Safe to call twice."""
        if self._process is not None and not self._has_died:
            self._process.kill()

    async def wait_died(self) -> None:
        """Return when the zygote is gone and reaped."""
        await asyncio.shield(self._died)

    # --- control socket ---------------------------------------------------------------------------------------------

    def _send(self, message: Message | ZygoteSettings) -> None:
        if self._has_died:
            return
        if self._unsent:
            self._unsent += encode_frame(message)
            return
        self._unsent = encode_frame(message)
        self._flush()
        if self._unsent:
            self._loop.add_writer(self._control, self._on_writable)

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it is dying; `_on_exit` follows
            sent = len(self._unsent)
        del self._unsent[:sent]

    def _on_writable(self) -> None:
        self._flush()
        if not self._unsent:
            self._loop.remove_writer(self._control)

    def _on_readable(self) -> None:
        if not self._read():
            self._loop.remove_reader(self._control)

    def _read(self) -> bool:
        """Read and pass on what is there; return False at the end of the stream."""
        try:
            data, ancillary, flags, _ = self._control.recvmsg(
                READ_BYTES, socket.CMSG_SPACE(MAX_FDS_PER_MESSAGE * 4), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._received_fds.extend(array.array("i", content[: len(content) - len(content) % 4]))
        if not data:
            return False
        try:
            for message in self._reader.feed(data):
                self._dispatch(message)
        except FrameError:  # it is not a zygote any more
            self.kill()
            return False
        if flags & socket.MSG_CTRUNC and self._reader.has_partial:
            # This process had no file descriptor free for what came with a message, and the rest of that message is
            # still to come: what comes after it could not be told apart from what is missing.
            logger.error("zygote %s is ended: there was no file descriptor free to hear it out", self.pid)
            self.kill()
            return False
        return True

    def _dispatch(self, message: FromZygote) -> None:
        if isinstance(message, ProcessReplaced):
            process_exit, pid = read_replacement(message.record)
            spool_path = self._alive[pid] = self._alive.pop(process_exit.pid)
            self._on_exited([process_exit])
            self._announce([(pid, spool_path)])
        elif isinstance(message, ProcessesForked):
            folder = self._settings.spool_folder
            paths = [os.path.join(folder, spool) for spool in message.spools]
            self._alive.update(zip(message.pids, paths, strict=True))
            self._announce(list(zip(message.pids, paths, strict=True)))
        elif isinstance(message, ProcessesExited):
            for process_exit in message.exits:
                self._alive.pop(process_exit.pid, None)
            self._on_exited(message.exits)
        else:
            self._ready, self._ready_at = message, time.monotonic()
            self._on_ready(message)

    def _announce(self, processes: list[tuple[int, str]]) -> None:
        """Pass on new task processes, given by pid and spool file, each with the socket that came along."""
        forked = []
        for pid, spool_path in processes:
            if self._received_fds:
                forked.append((pid, self._next_socket(), spool_path))
                continue
            # The kernel found no file descriptor free for it. Nobody can reach that process; there will be another one.
            logger.error("process %s is ended: there was no file descriptor free for its socket", pid)
            self._loop.call_later(PAUSE_SECONDS, self.end_process, pid)
        if forked:
            self._on_forked(forked)

    def _next_socket(self) -> socket.socket:
        # All four are given, so that nothing has to be asked of the kernel.
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self._received_fds.popleft())
        end.setblocking(False)
        return end

    # --- its end ----------------------------------------------------------------------------------------------------

    def _on_exit(self) -> None:
        """The zygote is a zombie: hear its last words, then let go of it."""
        while self._has_more_to_say():
            pass
        self._has_died = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._control.close()
        while self._received_fds:
            os.close(self._received_fds.popleft())
        assert self._process is not None
        self._process.wait()  # returns at once
        self._end_what_is_left()

    def _end_what_is_left(self) -> None:
        try:
            kill_strays((), find=self._left_behind)
        except OSError as error:  # no file descriptor is free to look for them
            logger.error("what zygote %s has left behind is not ended yet: %s", self.pid, error)
            self._loop.call_later(PAUSE_SECONDS, self._end_what_is_left)
            return
        if not self._died.done():
            self._died.set_result(None)
        self._on_died()

    def _left_behind(self) -> set[int]:
        """The children of this process that were the zygote's, or of one of its tasks."""
        return {pid for pid in children() if pid in self._alive or has_mark(pid, self._mark)}

    def _has_more_to_say(self) -> bool:
        return self._control.fileno() >= 0 and self._read_available()

    def _read_available(self) -> bool:
        try:
            self._control.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        return self._read()


def _package_folder(package: ModuleType) -> str:
    """Return the folder from which a package was imported."""
    return os.path.dirname(os.path.dirname(os.path.realpath(str(package.__file__))))
