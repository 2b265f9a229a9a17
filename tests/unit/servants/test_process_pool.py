"""The pool of processes, with zygotes that do nothing but note what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from palpable._wire.messages import ZygoteReady
from palpable._zygote.settings import ZygoteSettings
from palpable.servants import process_pool
from palpable.servants.process_pool import ProcessPool


class Zygote:
    """In place of a `ZygoteHandle`."""

    all: list[Zygote]

    def __init__(self, settings: ZygoteSettings, *, on_ready: Any, on_died: Any, **others: Any) -> None:
        self.settings, self.on_ready, self.on_died = settings, on_ready, on_died
        self.pid: int | None = None
        self.is_closed = False
        Zygote.all.append(self)

    def start(self, environment: Mapping[str, str]) -> None:
        self.pid = 1000 + len(Zygote.all)

    def ready(self) -> None:
        assert self.pid is not None
        self.on_ready(ZygoteReady(pid=self.pid))

    def keep_alive(self, count: int) -> None:
        self.count = count

    def close(self) -> None:
        self.is_closed = True

    async def wait_died(self) -> None:
        assert self.is_closed, "this would be waited for in vain"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> ProcessPool:
    Zygote.all = []
    monkeypatch.setattr(process_pool, "ZygoteHandle", Zygote)
    return ProcessPool(_settings, 2, [], lambda link, how: None, {})


def _settings(preload: list[str]) -> ZygoteSettings:
    return ZygoteSettings(name="z", spool_folder="", sys_path=[], cwd="", preload=preload)


async def _begin_to_renew(pool: ProcessPool) -> tuple[list[Zygote], list[Zygote]]:
    """Start the pool, and have it learn of a module; return the zygotes that serve, and those that are to."""
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    first = list(Zygote.all)
    for zygote in first:
        zygote.ready()
    await starting
    pool.learn({"numpy": 1.0})
    return first, Zygote.all[len(first) :]


def test_zygotes_that_are_about_to_take_over_end_with_the_pool(pool: ProcessPool) -> None:
    async def run() -> None:
        first, second = await _begin_to_renew(pool)
        assert len(pool.zygote_pids()) == 4
        pool.close()
        assert all(zygote.is_closed for zygote in [*first, *second])
        await pool.wait_closed()

    asyncio.run(run())


def test_one_that_dies_before_it_is_ready_does_not_keep_the_others_from_taking_over(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "RESPAWN_SECONDS", 0.0)

    async def run() -> None:
        first, (healthy, doomed) = await _begin_to_renew(pool)
        healthy.ready()
        doomed.on_died()
        assert all(zygote.is_closed for zygote in first)
        assert pool.describe()["zygotes"] == [{"pid": healthy.pid, "idle": 0, "busy": 0}]
        while len(Zygote.all) < 5:  # another one takes its place
            await asyncio.sleep(0)

    asyncio.run(run())
