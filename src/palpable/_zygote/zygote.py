"""The zygote: a warm interpreter with one thread, that forks task processes and tells how they ended.

Runs in: the zygote. Speaks with: the server, over the control socket. It runs no user code but imports.

It keeps as many task processes alive as the server asks for, and forks others when some have ended. What costs time
here is copying memory pages on write (about 4 us each): see `hot_memory` and `rehearsal`.

After the server's end (the control socket is at its end) it kills all its task processes and exits.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from _socket import SCM_RIGHTS, SOL_SOCKET, socket, socketpair  # without the enums of `socket`: cheaper
from collections import deque
from collections.abc import Callable, Set
from contextlib import suppress
from importlib.machinery import PathFinder
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any, NoReturn

from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.main_module import TaskMain
from palpable._wire.messages import (
    EndProcess,
    KeepAlive,
    ProcessesExited,
    ProcessesForked,
    ProcessExit,
    ToZygote,
    ZygoteReady,
)
from palpable._zygote import fork_hooks, hot_memory, huge_code, huge_pages, joined_mappings, os_calls, output, reseed
from palpable._zygote.books import Books
from palpable._zygote.import_costs import ImportClock
from palpable._zygote.replacement import read_replacement
from palpable._zygote.settings import ZygoteSettings
from palpable._zygote.spools import Spools
from palpable._zygote.strays import OwnChildren, kill_strays
from palpable._zygote.task_process import SOCKET_FD, TaskProcess
from palpable._zygote.usage_meter import RSS_UNIT_BYTES

READ_BYTES, SIGNAL_BYTES = 1 << 12, 128
"""Little, since what is read into is memory to copy. There is one pending SIGCHLD at most, of 128 bytes."""
FD_BYTES = 4
SIGKILL, SIGTERM = int(signal.SIGKILL), int(signal.SIGTERM)  # cheaper to hand on than members of an enum
MAX_BURST = 16
"""Forked at a time, before the server hears of them."""
FORK_RETRY_SECONDS = 0.1
"""After a fork that failed because the system is out of processes or memory."""
MAX_FD = min(getrlimit(RLIMIT_NOFILE)[0], 1 << 16)
"""No file descriptor of the zygote is as high as that."""


class Zygote:
    """Forks task processes, waits for them, ends them.

    Args:
        control: the control socket.
        settings: what the server wants.
        keep_fds: file descriptors that preloaded modules opened; a task process keeps these.
    """

    def __init__(self, control: socket, settings: ZygoteSettings, keep_fds: Set[int] = frozenset()) -> None:
        self._control = control
        self._reader: FrameReader[Any] = FrameReader(ToZygote)
        self._spools = Spools(settings.spool_folder, settings.name)
        self._books = Books()
        self._pid = os.getpid()
        self._clock = ImportClock()
        self._children = OwnChildren()
        self._keep_fds = keep_fds
        self._unprepared: deque[str] = deque()
        """Modules to be made ready, one a turn: others wait meanwhile."""

    def run(self, ready: ZygoteReady) -> NoReturn:
        """Make everything ready for forking, say so, and serve."""
        self._prepare()
        self._send(ready)
        while True:
            if self._unprepared or not self._brief_turn():
                self._run_once()

    def _prepare(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        os_calls.unbuffer_c_stdout()
        fork_hooks.keep_native_id_true()
        sys.meta_path.insert(0, self._clock)
        sys.modules["__main__"] = TaskMain()
        self._child_signal = os_calls.ChildSignal()
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._child_signal.fd, select.POLLIN)
        gc.collect()
        gc.disable()
        os_calls.give_back_memory()
        hot_memory.begin()
        # Last, so that their code and all they make lie together.
        from palpable._zygote.brief_life import make_life
        from palpable._zygote.rehearsal import rehearse, trial_frame

        output.install()
        calls_at_birth: list[tuple[Callable[..., object], tuple[object, ...]]] = [
            *os_calls.calls_at_birth(_gaps_between({*self._keep_fds, SOCKET_FD})),
            *self._child_signal.calls_at_birth(),
            *([(fork_hooks.run, (fork_hooks.after_in_child,))] if fork_hooks.after_in_child else []),
            *((seed, ()) for seed in reseed.find_generators()),
            (os_calls.enable_gc, ()),
        ]
        self._task_process = TaskProcess(self._clock)
        if PathFinder in sys.meta_path:
            sys.meta_path.insert(sys.meta_path.index(PathFinder), self._task_process.prepared)
        trial = trial_frame()
        rehearse(self._task_process, trial)
        self._fork_process = hot_memory.copy_of(os_calls.fork)
        self._live = make_life(self._task_process, SOCKET_FD, self._pid, calls_at_birth, os_calls.exit_now, trial)
        self._brief_turn = self._make_brief_turn()
        gc.freeze()
        huge_pages.move_there()
        huge_code.move_there()
        joined_mappings.join()

    def _make_brief_turn(self) -> Callable[[], bool]:
        from palpable._zygote.brief_turn import CAN_BE_BRIEF, make_forker, make_turn
        from palpable._zygote.rehearsal import rehearse_fork

        if not CAN_BE_BRIEF or self._children.fd < 0 or fork_hooks.before or fork_hooks.after_in_parent:
            return lambda: False
        rehearse_fork()
        return make_turn(
            self._books,
            self._control.fileno(),
            self._child_signal.fd,
            self._children.fd,
            make_forker(os_calls.fork_or_minus_one, self._live, self._task_process.fail),
            kill_strays=self._kill_strays,
            on_not_forked=self._on_not_replaced,
            send_rest=self._send_rest,
        )

    def _run_once(self) -> None:
        """One turn: wait, then

        1. read what the server says,
        2. kill what got its time to end, and did not,
        3. report what ended,
        4. fork what is missing,
        5. make a module ready.
        """
        for fd, _ in self._poll.poll(self._wait_milliseconds()):
            if fd == self._child_signal.fd:
                os.read(fd, SIGNAL_BYTES)
            else:
                self._read()
        if self._books.kill_at:
            self._kill_overdue()
        if exits := self._collect_exits():
            self._send(ProcessesExited(exits=exits))
        while self._books.count > len(self._books.alive) and self._fork_missing():
            pass
        if self._unprepared:
            self._task_process.prepared.prepare(self._unprepared.popleft())
            gc.freeze()  # else the collector of each task looks through that, and so copies it

    def _wait_milliseconds(self) -> float | None:
        if self._unprepared:
            return 0.0
        moments = list(self._books.kill_at.values())
        if self._books.fork_again_at:
            moments.append(self._books.fork_again_at)
        if not moments:
            return None
        return max(0.0, min(moments) - time.monotonic()) * 1000 + 1

    # --- talking --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data = self._control.recv(READ_BYTES)
            messages = self._reader.feed(data)
        except (ConnectionError, FrameError):
            data, messages = b"", []
        if not data:
            self._end_all()
        for message in messages:
            if isinstance(message, KeepAlive):
                self._books.count = message.count
            elif isinstance(message, EndProcess):
                self._end(message)
            else:
                self._unprepared.extend(message.modules)

    def _send(self, message: Any, fds: bytes = b"") -> None:
        """Send, however long it takes: the server always reads. `fds` travel with the first byte."""
        frame = encode_frame(message)
        try:
            if not fds:
                self._control.sendall(frame)
                return
            sent = self._control.sendmsg((frame,), ((SOL_SOCKET, SCM_RIGHTS, fds),))
            if sent < len(frame):
                self._control.sendall(memoryview(frame)[sent:])
        except ConnectionError:
            self._end_all()

    # --- forking --------------------------------------------------------------------------------------------------

    def _fork_missing(self) -> bool:
        """Fork what is missing, at most `MAX_BURST`, and announce it; return False if there is no room for more now."""
        if self._books.fork_again_at:
            if self._books.fork_again_at > time.monotonic():
                return False
            self._books.fork_again_at = 0.0
        forked: list[tuple[int, str, tuple[socket, socket]]] = []
        # Between two forks as little as possible is done: each makes all memory shared again.
        for _ in range(min(self._books.count - len(self._books.alive), MAX_BURST)):
            try:
                forked.append(self._fork())
            except OSError as error:
                with suppress(OSError):  # perhaps nobody reads that any more
                    print(f"palpable: no new process can be forked now: {error}", file=sys.stderr)
                self._books.fork_again_at = time.monotonic() + FORK_RETRY_SECONDS
                break
        if not forked:
            return False
        fds = b"".join([ends[0].fileno().to_bytes(FD_BYTES, sys.byteorder) for _, _, ends in forked])
        self._send(ProcessesForked(pids=[pid for pid, _, _ in forked], spools=[name for _, name, _ in forked]), fds)
        for _, _, ends in forked:
            for end in ends:
                end.close()
        return not self._books.fork_again_at

    def _fork(self) -> tuple[int, str, tuple[socket, socket]]:
        """Fork one task process; return its pid, the name of its spool file, and both ends of its socket pair.

        Raises:
            OSError: the system has no room for one now.
        """
        spool = self._spools.take()
        ends: tuple[socket, ...] = ()
        try:
            ours, theirs = ends = socketpair()
            if fork_hooks.before:
                fork_hooks.run(fork_hooks.before)
            pid = self._fork_process()
        except OSError:
            self._spools.give_back(spool)
            for end in ends:
                end.close()
            if ends:  # so the hooks before the fork were run
                fork_hooks.run(fork_hooks.after_in_parent)
            raise
        if pid == 0:
            try:
                self._live(theirs.fileno(), spool[1])
            except BaseException as error:
                self._task_process.fail(error)
        if fork_hooks.after_in_parent:
            fork_hooks.run(fork_hooks.after_in_parent)
        self._books.alive[pid] = spool
        return pid, spool[0], (ours, theirs)

    def _on_not_replaced(self, record: bytes, spool: tuple[str, int]) -> None:
        """A process has ended, and the system has no room for another one now."""
        self._spools.give_back(spool)
        self._books.fork_again_at = time.monotonic() + FORK_RETRY_SECONDS
        self._send(ProcessesExited(exits=[read_replacement(record)[0]]))

    def _send_rest(self, frame: bytearray, sent: int) -> None:
        if sent < 0:
            self._end_all()
        try:
            self._control.sendall(memoryview(frame)[sent:])
        except ConnectionError:
            self._end_all()

    # --- ending ---------------------------------------------------------------------------------------------------

    def _end(self, order: EndProcess) -> None:
        """Begin to end a process; `_kill_overdue` goes on if need be, and `_collect_exits` sees to what it leaves."""
        pid = order.pid
        if pid not in self._books.alive:
            return  # it has ended meanwhile
        if order.grace_seconds <= 0:
            self._kill(pid)
            return
        kill_at = time.monotonic() + order.grace_seconds
        if pid in self._books.kill_at:
            self._books.kill_at[pid] = min(self._books.kill_at[pid], kill_at)
            return
        self._books.kill_at[pid] = kill_at
        self._signal_group(pid, SIGTERM)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, moment in self._books.kill_at.items() if moment <= now]:
            del self._books.kill_at[pid]
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        """Kill a process that was not waited for yet; what it leaves is killed when it has ended."""
        if self._children.is_blind:
            self._signal_group(pid, SIGKILL)
        else:
            os.kill(pid, SIGKILL)  # not its group, in which its resource tracker is

    def _kill_strays(self, *ended: int) -> int:
        """Kill what processes that have ended, and were not waited for, have left; return how many."""
        if self._children.is_blind:
            for pid in ended:
                self._signal_group(pid, SIGKILL)
        return kill_strays(self._books.alive, find=self._children.pids, groups=ended)

    def _signal_group(self, pid: int, number: int) -> None:
        """Send a signal to a process that was not waited for yet, and to its group."""
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it is so young that it has no group of its own yet
            os.kill(pid, number)
        except PermissionError:  # macOS: nothing but a zombie is left in the group
            return

    def _collect_exits(self) -> list[ProcessExit]:
        """Reap every task process that has ended, kill what it left, and return how it ended."""
        exits = []
        while pid := _find_ended():
            spool = self._books.alive.get(pid)
            if spool is None:  # a stray that could not be killed in time, and has ended now
                os.waitpid(pid, 0)
                continue
            strays = 0
            if self._children.is_blind or self._children.has_more_than(len(self._books.alive)):
                # Before it is waited for: the zombie still holds the group's number, no other group can have it.
                strays = self._kill_strays(pid)
            _, wait_status, usage = os.wait4(pid, 0)
            del self._books.alive[pid]
            self._books.kill_at.pop(pid, None)
            self._spools.give_back(spool)
            exits.append(
                ProcessExit(
                    pid,
                    os.waitstatus_to_exitcode(wait_status),
                    usage[0] + usage[1],
                    usage[2] * RSS_UNIT_BYTES,
                    strays,
                )
            )
        return exits

    def _end_all(self) -> NoReturn:
        """The server is gone: kill every task process and what it leaves, and exit."""
        for pid in self._books.alive:
            self._kill(pid)
        for pid in self._books.alive:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._kill_strays(*self._books.alive)
        for pid in self._books.alive:
            os.waitpid(pid, 0)
        os._exit(0)


def _gaps_between(fds: set[int]) -> list[range]:
    """Return the ranges, from 3, in which none of `fds` is."""
    gaps = []
    first = 3
    for fd in sorted(fds):
        if fd > first:
            gaps.append(range(first, fd))
        first = fd + 1
    return [*gaps, range(first, MAX_FD)]


def _find_ended() -> int:
    """Return the pid of a child that has ended and was not waited for, or 0."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0
