"""What can be seen of a task while it waits, runs and is run again; and what it sees itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from palpable import AsyncClient, Client, Server, current_task
from support import tasks
from support.wait import wait_until


def report_and_hold(folder: str) -> str:
    print("at work", flush=True)
    current_task().progress(2, 10, "reading")
    return tasks.hold(folder)


def fail_aloud(_: object = None) -> None:
    print(f"attempt {current_task().attempt}", flush=True)
    raise tasks.OddNumber(1)


def seen_inside(_: object = None) -> tuple[int, float | None, float | None, str]:
    messenger = current_task()
    left = None if messenger.deadline is None else messenger.deadline - time.monotonic()
    return messenger.attempt, left, messenger.remaining_seconds, messenger.name


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_progress_and_logs_of_a_running_task(client: Client, tmp_path: Path, isolation: Any) -> None:
    future = client.options(isolation=isolation).submit(report_and_hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    assert wait_until(lambda: future.progress) == (2, 10, "reading")
    assert future.state == "running" and future.running()
    assert future.logs() == "at work\n"
    (tmp_path / "holding.go").touch()
    assert future.result(timeout=20) == "holding"
    assert future.state == "succeeded"


def test_an_asyncio_future_shows_the_same(server: Server, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            future = await client.submit(report_and_hold, str(tmp_path))
            async with asyncio.timeout(20):
                while not await future.progress():
                    await asyncio.sleep(0.01)
            assert await future.progress() == (2, 10, "reading")
            assert await future.state() == "running"
            assert await future.logs() == "at work\n"
            (tmp_path / "holding.go").touch()
            assert "".join([piece async for piece in future.follow_logs()]) == "at work\n"
            assert await future == "holding"
            assert await future.state() == "succeeded"
            later = await client.options(delay_seconds=3600).submit(tasks.double, 1)
            assert await later.state() == "scheduled"
            assert await later.cancel()
            with pytest.raises(Exception, match="cancelled"):
                await later
            assert await later.state() == "cancelled"

    asyncio.run(main())


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_the_output_of_a_failed_attempt_can_be_read_before_the_next(client: Client, isolation: Any) -> None:
    future = client.options(isolation=isolation, retries=1, backoff_seconds=86400, max_backoff_seconds=86400).submit(
        fail_aloud
    )
    wait_until(lambda: future.state == "retrying")
    wait_until(lambda: "attempt 1" in future.logs())
    assert future.cancel()


def test_a_task_knows_its_attempt_its_name_and_its_deadline(client: Client) -> None:
    attempt, left, remaining, name = client.options(timeout_seconds=100, name="look around").run(seen_inside, None)
    assert (attempt, name) == (1, "look around")
    assert left is not None and 50 < left <= 100
    assert remaining == pytest.approx(left, abs=1)
