"""The pool of processes, with zygotes that do nothing but note what they are told."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from palpable._wire.messages import ZygoteReady
from palpable._zygote.settings import ZygoteSettings
from palpable.servants import process_pool
from palpable.servants.process_link import ProcessLink
from palpable.servants.process_pool import NoZygote, ProcessPool


class Zygote:
    """In place of a `ZygoteHandle`."""

    all: list[Zygote]
    """Those that were started."""
    failures: int
    """So many more will not start."""

    def __init__(self, settings: ZygoteSettings, *, on_ready: Any, on_died: Any, **others: Any) -> None:
        self.settings, self.on_ready, self.on_died = settings, on_ready, on_died
        self.pid: int | None = None
        self.prepared: list[list[str]] = []
        self.is_closed = self.is_killed = self.has_changed_files = False
        self.served_seconds = -math.inf

    def start(self, environment: Mapping[str, str]) -> None:
        if Zygote.failures:
            Zygote.failures -= 1
            raise BlockingIOError(errno.EAGAIN, "no process to be had")
        Zygote.all.append(self)
        self.pid = 1000 + len(Zygote.all)

    def is_stale(self) -> bool:
        return self.has_changed_files

    def ready(self) -> None:
        assert self.pid is not None
        self.served_seconds = 0.0
        self.on_ready(ZygoteReady(pid=self.pid))

    def keep_alive(self, count: int) -> None:
        self.count = count

    def prepare_modules(self, modules: list[str]) -> None:
        self.prepared.append(modules)

    def close(self) -> None:
        self.is_closed = True

    def kill(self) -> None:
        self.is_killed = True

    async def wait_died(self) -> None:
        assert self.is_closed, "this would be waited for in vain"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> ProcessPool:
    Zygote.all, Zygote.failures = [], 0
    monkeypatch.setattr(process_pool, "RESPAWN_SECONDS", 0.0)
    monkeypatch.setattr(process_pool, "ZygoteHandle", Zygote)
    """One with two zygotes."""
    return ProcessPool(_settings, 2 * process_pool.CORES_PER_ZYGOTE, [], lambda link, how: None, {})


def _settings(preload: list[str]) -> ZygoteSettings:
    return ZygoteSettings(name="z", spool_folder="", sys_path=[], cwd="", preload=preload)


async def _start(pool: ProcessPool) -> list[Zygote]:
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    for zygote in Zygote.all:
        zygote.ready()
    await starting
    return list(Zygote.all)


async def _begin_to_renew(pool: ProcessPool) -> tuple[list[Zygote], list[Zygote]]:
    """Start the pool, and have it learn of a module; return the zygotes that serve, and those that are to."""
    first = await _start(pool)
    pool.learn({"numpy": 1.0})
    return first, Zygote.all[len(first) :]


async def _until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0)


def test_no_more_is_learned_than_there_is_room_for(pool: ProcessPool) -> None:
    async def scenario() -> None:
        await _start(pool)
        pool.learn({f"m{number}": 1.0 for number in range(process_pool.PRELOAD_MAX + 5)})
        pool.learn({"one_more": 1.0})
        preloaded = Zygote.all[-1].settings.preload
        assert preloaded == [f"m{number}" for number in range(process_pool.PRELOAD_MAX)]
        pool.close()

    asyncio.run(scenario())


def test_zygotes_that_are_about_to_take_over_end_with_the_pool(pool: ProcessPool) -> None:
    async def run() -> None:
        first, second = await _begin_to_renew(pool)
        assert len(pool.zygote_pids()) == 4
        pool.close()
        assert all(zygote.is_closed for zygote in [*first, *second])
        await pool.wait_closed()

    asyncio.run(run())


def test_one_that_dies_before_it_is_ready_does_not_keep_the_others_from_taking_over(
    pool: ProcessPool,
) -> None:
    async def run() -> None:
        first, (healthy, doomed) = await _begin_to_renew(pool)
        healthy.ready()
        doomed.on_died()
        assert all(zygote.is_closed for zygote in first)
        assert pool.describe()["zygotes"] == [{"pid": healthy.pid, "idle": 0, "busy": 0}]
        while len(Zygote.all) < 5:  # another one takes its place
            await asyncio.sleep(0)

    asyncio.run(run())


def test_one_that_can_not_be_started_now_is_started_later(pool: ProcessPool) -> None:
    async def run() -> None:
        healthy, doomed = await _start(pool)
        Zygote.failures = 3
        doomed.on_died()
        await _until(lambda: len(pool.zygote_pids()) == 2)
        assert Zygote.failures == 0
        pool.keep_alive(4)
        assert [zygote.count for zygote in (healthy, Zygote.all[2])] == [2, 2], "no part for one that is not there"
        pool.close()
        await pool.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize("failures", [1, 2])
def test_a_generation_that_can_not_be_started_leaves_the_old_one_and_another_one_takes_over(
    pool: ProcessPool, failures: int
) -> None:
    async def run() -> None:
        first = await _start(pool)
        Zygote.failures = failures
        pool.learn({"numpy": 1.0})
        if failures == 2:
            assert pool.zygote_pids() == [zygote.pid for zygote in first]
            pool.learn({"pandas": 1.0})
        for zygote in Zygote.all[2:]:
            zygote.ready()
        await _until(lambda: len(pool.describe()["zygotes"]) == 2)
        assert all(zygote.is_closed for zygote in first)

    asyncio.run(run())


def test_one_that_is_replaced_before_it_was_ready_counts_no_more(pool: ProcessPool) -> None:
    async def run() -> None:
        starting = asyncio.ensure_future(pool.start())
        await asyncio.sleep(0)
        ready, late = Zygote.all
        ready.ready()
        await starting
        ready.has_changed_files = True
        pool.acquire(ProcessLink(1, "task", 1024, lambda link, messages: None, asyncio.get_running_loop()))
        pool.learn({"numpy": 1.0})
        late.ready()
        assert pool.zygote_pids()[:2] == [zygote.pid for zygote in Zygote.all[2:4]], "those with the new file serve"
        assert late.is_closed

    asyncio.run(run())


@pytest.mark.parametrize("how", ["not started", "ended"])
def test_where_none_can_run_the_start_fails_with_the_reason(pool: ProcessPool, how: str) -> None:
    async def run() -> None:
        Zygote.failures = 99 if how == "not started" else 0
        starting = asyncio.ensure_future(pool.start())
        ended = 0
        while not starting.done():
            await asyncio.sleep(0)
            for zygote in Zygote.all[ended:]:
                zygote.on_died()
                ended += 1
        reason = "no process to be had" if how == "not started" else "ended before one was ready"
        with pytest.raises(NoZygote, match=reason):
            await starting

    asyncio.run(asyncio.wait_for(run(), 10))


def test_one_that_is_never_ready_ends_with_the_attempt_to_start(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "START_SECONDS", 0.01)

    async def run() -> None:
        with pytest.raises(NoZygote, match=r"within 0\.01 seconds"):
            await pool.start()
        assert all(zygote.is_killed for zygote in Zygote.all)

    asyncio.run(run())


@pytest.mark.parametrize(("cores", "zygotes"), [(1, 1), (2, 1), (3, 2), (4, 2), (64, 32)])
def test_a_zygote_forks_for_two_cores(pool: ProcessPool, cores: int, zygotes: int) -> None:
    async def run() -> None:
        others = ProcessPool(_settings, cores, [], lambda link, how: None, {})
        await _start(others)
        assert len(others.describe()["zygotes"]) == zygotes

    asyncio.run(run())


def test_one_that_served_is_replaced_at_once_and_one_that_died_young_after_a_while(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        served, young = await _start(pool)
        monkeypatch.setattr(process_pool, "RESPAWN_SECONDS", 0.05)
        served.served_seconds = process_pool.SERVED_SECONDS
        served.on_died()
        assert len(Zygote.all) == 3
        for zygote in (young, Zygote.all[2]):
            zygote.on_died()
        assert len(Zygote.all) == 3
        await _until(lambda: len(Zygote.all) == 5)

    asyncio.run(run())


def test_all_zygotes_are_told_what_to_make_ready_those_that_come_later_too(pool: ProcessPool) -> None:
    async def run() -> None:
        for zygote in (zygotes := await _start(pool)):
            assert zygote.prepared == []
        pool.prepare(["one", "two", "one"])
        pool.prepare(["two"])  # its file has changed
        assert [zygote.prepared for zygote in zygotes] == [[["one", "two"], ["two"]]] * 2
        zygotes[0].on_died()
        await _until(lambda: len(Zygote.all) == 3)
        Zygote.all[2].ready()
        assert Zygote.all[2].prepared == [["one", "two"]]

    asyncio.run(run())


def test_a_task_that_imports_ever_new_modules_does_not_fill_the_zygotes(pool: ProcessPool) -> None:
    async def run() -> None:
        zygote, _ = await _start(pool)
        pool.prepare(["one", "two", "three", "four"], 3)
        pool.prepare(["four", "one"], 3)
        pool.prepare(["five"], 3)
        pool.prepare(["module_of_a_function"])
        assert zygote.prepared == [["one", "two", "three"], ["one"], ["module_of_a_function"]]

    asyncio.run(run())


def test_where_a_retired_zygote_dies_those_that_serve_make_up_for_its_busy_processes(pool: ProcessPool) -> None:
    async def scenario() -> None:
        pool.keep_alive(2)
        first, second = await _begin_to_renew(pool)
        link: Any = SimpleNamespace(bind=lambda *_: None)
        pool.acquire(link)
        pool._on_forked(first[0], [(1, SimpleNamespace(close=lambda: None), "")])
        for zygote in second:
            zygote.ready()
        assert first[0] in pool._retired and sum(zygote.count for zygote in second) == 1
        first[0].on_died()
        assert sum(zygote.count for zygote in second) == 2
        pool.close()

    asyncio.run(scenario())
