"""The idle task processes, and the zygotes that fork them.

Runs in: the server process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from palpable._wire.messages import ProcessExit, ZygoteReady
from palpable._zygote.settings import ZygoteSettings
from palpable._zygote.zygote_handle import ZygoteHandle
from palpable.servants.import_learner import ImportLearner
from palpable.servants.process_link import ProcessLink

logger = logging.getLogger("palpable.server")

CORES_PER_ZYGOTE = 2
"""To fork is a fifth of the work for a small task, so one zygote forks for two cores that run tasks. With one for each,
these two get in each other's way."""
RESPAWN_SECONDS = 0.2
"""Before a zygote that died young, or could not be started, is replaced: one that can't live must not be started in a
tight loop."""
START_SECONDS = 60.0
"""Until the first zygote must be ready."""
START_TRIES = 5
"""Zygotes that end before any was ready; then there is something about this environment that no zygote starts in."""
STALE_SECONDS = 1.0
"""How often, at most, preloaded source files are compared with those on disk; only when a task starts a process."""
PRELOAD_MAX = 40
"""Modules preloaded by themselves at most; each makes every fork dearer."""
PREPARED_MAX = 500
"""Modules of programs that zygotes are told of."""
SERVED_SECONDS = 1.0
"""A zygote that was ready for as long is replaced at once."""


class NoZygote(RuntimeError):
    """No zygote could be started, so no task could ever run."""


class ProcessPool:
    """Binds runners to task processes forked ahead, keeps the right number of them alive, and learns what to preload.

    Args:
        make_settings: returns the settings for a new zygote, given what it shall preload.
        cores: how many run tasks; decides how many zygotes there are.
        on_exited: called with the link of a process that is gone, and how it ended. None: its zygote was killed.
        environment: of zygotes and tasks.
    """

    def __init__(
        self,
        make_settings: Callable[[list[str]], ZygoteSettings],
        cores: int,
        preload: list[str],
        on_exited: Callable[[ProcessLink, ProcessExit | None], None],
        environment: Mapping[str, str],
    ) -> None:
        self._environment = environment
        self._make_settings = make_settings
        self._on_exited = on_exited
        self.preload = list(preload)
        self.refused: dict[str, str] = {}
        self._zygotes: list[ZygoteHandle] = []
        """Those that fork; a retired one has left the list and lives until its last process is gone."""
        self._retired: set[ZygoteHandle] = set()
        self._next_generation: list[ZygoteHandle] = []
        """Those that will take the place of all that fork, once all of them are ready."""
        self._ready_next: set[ZygoteHandle] = set()
        self._generation_wants: dict[str, None] = {}
        """What the next generation is to have learned."""
        self._zygote_count = max(1, -(-cores // CORES_PER_ZYGOTE))
        self._idle: dict[ZygoteHandle, deque[tuple[int, socket.socket, str]]] = {}
        self._links: dict[ZygoteHandle, dict[int, ProcessLink]] = {}
        self._wanting: deque[ProcessLink] = deque()
        self._wanted_count = 0
        self._is_closing = False
        self._is_renewing = False
        self._learner = ImportLearner()
        self._learned: dict[str, None] = {}
        self._prepared: dict[str, None] = {}
        """Modules of programs, in the order of their first appearance."""
        self._check_stale_at = 0.0
        self._first_ready: asyncio.Future[None] | None = None
        self._failed_starts = 0

    # --- what the manager asks ---

    async def start(self) -> None:
        """Start the zygotes; return when one is ready.

        Raises:
            NoZygote: none could be started, or none in time; none is left.
        """
        self._first_ready = asyncio.get_running_loop().create_future()
        for _ in range(self._zygote_count):
            self._start_zygote(self._zygotes)
        try:
            await asyncio.wait_for(self._first_ready, START_SECONDS)
        except TimeoutError:
            await self._end_unready()
            raise NoZygote(
                f"no process for tasks was ready within {START_SECONDS:g} seconds. Is a preloaded module slow?"
            ) from None
        except NoZygote:
            await self._end_unready()
            raise

    async def _end_unready(self) -> None:
        """End what was started last: it does what those before it did, or is in the middle of an import."""
        self.close()
        for zygote in self._every_zygote():
            zygote.kill()
        await self.wait_closed()

    def acquire(self, link: ProcessLink) -> None:
        """Bind the link to an idle process, now or as soon as there is one."""
        now = time.monotonic()
        if now >= self._check_stale_at:
            self._check_stale_at = now + STALE_SECONDS
            if any(zygote.is_stale() for zygote in self._zygotes):
                self._replace_stale()
        self._wanting.append(link)
        self._bind_wanting()

    def release_unbound(self, link: ProcessLink) -> None:
        """The link wants no process any more."""
        if link in self._wanting:
            self._wanting.remove(link)

    def keep_alive(self, count: int) -> None:
        """Keep this many processes alive, busy and idle together."""
        if count != self._wanted_count:
            self._wanted_count = count
            self._share_out()

    def learn(self, imported: dict[str, float]) -> None:
        """A task imported these modules, at that cost in seconds: preload the dear ones from now on, in this order."""
        room = PRELOAD_MAX - len(self.preload) - len(self._learned)
        if room <= 0:
            return
        if dear := self._learner.note(imported, {*self.preload, *self.refused, *self._learned}):
            self._learned |= dict.fromkeys(dear[:room])
            self._renew()

    def prepare(self, modules: Iterable[str], known_max: int = PREPARED_MAX) -> None:
        """Tasks will import these: have the zygotes make them ready, also if that was done, since files change.

        Args:
            known_max: with as many modules no other one is taken up.
        """
        known, names = self._prepared, []
        for name in dict.fromkeys(modules):
            if name in known or len(known) < known_max:
                known[name] = None
                names.append(name)
        if names:
            for zygote in self._zygotes:
                zygote.prepare_modules(names)

    @property
    def idle_count(self) -> int:
        return sum(len(idle) for idle in self._idle.values())

    def zygote_pids(self) -> list[int]:
        return [zygote.pid for zygote in self._every_zygote() if zygote.pid is not None]

    def _every_zygote(self) -> list[ZygoteHandle]:
        return [*self._zygotes, *self._retired, *self._next_generation]

    def close(self) -> None:
        """End all zygotes with all their processes."""
        self._is_closing = True
        for zygote in self._every_zygote():
            zygote.close()
        for idle in self._idle.values():
            for _, process_socket, _ in idle:
                process_socket.close()
            idle.clear()

    async def wait_closed(self) -> None:
        """Return when every zygote has exited."""
        await asyncio.gather(*(zygote.wait_died() for zygote in self._every_zygote()))

    # --- zygotes ---

    def _start_zygote(self, generation: list[ZygoteHandle]) -> None:
        """Start one more. If the system has no room for it now, say so, and try again soon for those that serve."""
        zygote: ZygoteHandle = ZygoteHandle(
            self._make_settings([*self.preload, *self._learned]),
            on_ready=lambda ready: self._on_ready(zygote, ready),
            on_forked=lambda processes: self._on_forked(zygote, processes),
            on_exited=lambda exits: self._on_zygote_exits(zygote, exits),
            on_died=lambda: self._on_died(zygote),
        )
        try:
            zygote.start(self._environment)
        except OSError as error:
            logger.error("no zygote can be started now: %s", error)
            self._on_failed_start(str(error))
            self._respawn_soon()
            return
        generation.append(zygote)
        self._idle[zygote] = deque()
        self._links[zygote] = {}

    def _on_failed_start(self, reason: str) -> None:
        """A zygote has ended, or could not be started. Before any was ready that may be so for all there will be."""
        self._failed_starts += 1
        if self._failed_starts >= START_TRIES and self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_exception(NoZygote(f"no process for tasks could be started: {reason}"))

    def _on_ready(self, zygote: ZygoteHandle, ready: ZygoteReady) -> None:
        for name, reason in ready.refused.items():
            if name not in self.refused:
                self.refused[name] = reason
                logger.warning("%s is not preloaded: %s", name, reason)
        for name in self.refused:
            self._learned.pop(name, None)
        if self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_result(None)
        if self._prepared:
            zygote.prepare_modules(list(self._prepared))
        if zygote in self._zygotes:
            self._share_out()
        elif zygote in self._next_generation:
            self._ready_next.add(zygote)
            self._replace_generation()

    def _renew(self) -> None:
        """Start zygotes with another preload list beside the old ones, which serve until the new ones are ready."""
        if self._is_renewing or self._is_closing:
            return
        self._is_renewing = True
        self._generation_wants = self._learned.copy()
        self._ready_next = set()
        for _ in range(self._zygote_count):
            self._start_zygote(self._next_generation)
        if not self._next_generation:  # none could be started: as if all of it had died
            self._replace_generation()

    def _replace_generation(self) -> None:
        """Let the next generation serve, if all of it is ready."""
        if len(self._ready_next) < len(self._next_generation):
            return
        self._is_renewing = False
        if not self._next_generation:  # all of it died
            return
        old, self._zygotes, self._next_generation = self._zygotes, self._next_generation, []
        for _ in range(self._zygote_count - len(self._zygotes)):
            self._respawn_soon()
        for retired in old:
            self._retire(retired)
        self._share_out()
        if self._learned != self._generation_wants:
            self._renew()

    def _retire(self, zygote: ZygoteHandle) -> None:
        """Let a zygote that is replaced end with its last busy process. Its idle ones lack what was preloaded since."""
        zygote.keep_alive(0)
        for pid, process_socket, _ in self._idle[zygote]:
            process_socket.close()
            zygote.end_process(pid, 0.0)
        self._idle[zygote].clear()
        self._retired.add(zygote)
        self._close_if_done(zygote)

    def _replace_stale(self) -> None:
        """A preloaded source file has changed: no task may start with the old code, so tasks wait for new zygotes."""
        logger.info("a preloaded file has changed; the zygotes are replaced")
        stale, self._zygotes = self._zygotes, []
        for zygote in stale:
            self._retire(zygote)
        for _ in range(self._zygote_count):
            self._start_zygote(self._zygotes)

    def _close_if_done(self, zygote: ZygoteHandle) -> None:
        if zygote in self._retired and not self._links[zygote]:
            zygote.close()

    def _share_out(self) -> None:
        """Tell each zygote its part of the processes to keep alive."""
        if not self._zygotes or self._is_closing:
            return
        # Busy processes of retired zygotes count as well.
        count = max(0, self._wanted_count - sum(len(self._links[zygote]) for zygote in self._retired))
        share, rest = divmod(count, len(self._zygotes))
        for position, zygote in enumerate(self._zygotes):
            zygote.keep_alive(share + (position < rest))

    # --- what the zygotes say ---

    def _on_forked(self, zygote: ZygoteHandle, processes: list[tuple[int, socket.socket, str]]) -> None:
        if zygote in self._retired or self._is_closing:
            for pid, process_socket, _ in processes:
                process_socket.close()
                zygote.end_process(pid, 0.0)
            return
        self._idle[zygote].extend(processes)
        self._bind_wanting()

    def _bind_wanting(self) -> None:
        while self._wanting:
            # The zygote with the most idle processes: its core has had the most time.
            zygote = max(self._zygotes, key=lambda z: len(self._idle[z]), default=None)
            if zygote is None or not self._idle[zygote]:
                return
            pid, process_socket, spool_path = self._idle[zygote].popleft()
            link = self._wanting.popleft()
            self._links[zygote][pid] = link
            link.bind(pid, process_socket, spool_path, zygote)

    def _on_zygote_exits(self, zygote: ZygoteHandle, exits: list[ProcessExit]) -> None:
        for process_exit in exits:
            link = self._links[zygote].pop(process_exit.pid, None)
            if link is not None:
                self._on_exited(link, process_exit)
            else:
                self._drop_idle(zygote, process_exit.pid)
        if zygote in self._retired:
            self._share_out()
            self._close_if_done(zygote)

    def _drop_idle(self, zygote: ZygoteHandle, pid: int) -> None:
        for process in self._idle[zygote]:
            if process[0] == pid:
                process[1].close()
                self._idle[zygote].remove(process)
                return

    def _on_died(self, zygote: ZygoteHandle) -> None:
        """A zygote is gone; so are its processes, by the kernel's parent-death signal."""
        links, self._links[zygote] = self._links[zygote], {}
        for _, process_socket, _ in self._idle.pop(zygote):
            process_socket.close()
        was_wanted = zygote in self._zygotes
        if was_wanted:
            self._zygotes.remove(zygote)
        elif zygote in self._next_generation:
            self._next_generation.remove(zygote)
            self._ready_next.discard(zygote)
            self._replace_generation()  # the others may have waited for this one alone
        was_retired = zygote in self._retired
        self._retired.discard(zygote)
        for link in links.values():
            self._on_exited(link, None)
        del self._links[zygote]
        if was_retired:
            self._share_out()  # those that serve had left room for its busy processes
        if was_wanted and not self._is_closing:
            logger.error("zygote %s died; it is replaced, its %d tasks are reported", zygote.pid, len(links))
            self._on_failed_start(f"{START_TRIES} ended before one was ready")
            if zygote.served_seconds >= SERVED_SECONDS:
                self._respawn()
            else:
                self._respawn_soon()

    def _respawn_soon(self) -> None:
        asyncio.get_running_loop().call_later(RESPAWN_SECONDS, self._respawn)

    def _respawn(self) -> None:
        if not self._is_closing and len(self._zygotes) < self._zygote_count:
            self._start_zygote(self._zygotes)

    def describe(self) -> dict[str, Any]:
        """Return what a status report says of the pool."""
        return {
            "zygotes": [
                {"pid": zygote.pid, "idle": len(self._idle[zygote]), "busy": len(self._links[zygote])}
                for zygote in self._zygotes
            ],
            "preloaded": [*self.preload, *self._learned],
            "not_preloaded": dict(self.refused),
        }
