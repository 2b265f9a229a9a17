"""What the asyncio client of a client process does: several calls at a time over one connection that is made again.

Runs in: clients, in a thread of its own. Its records are in a file of its own, under the client's name and an "a".
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from palpable import AsyncClient
from palpable.units.task_exceptions import ServerUnreachable
from palpable.units.task_options import Isolation
from stress.storm.answers import REFUSED, UNFINISHED, answer_of_result, awaited_answer_of
from stress.storm.behaviours import perform
from stress.storm.client_actions import PATIENCE_SECONDS, PAUSE_SECONDS
from stress.storm.client_record import ClientRecord
from stress.storm.place import Place
from stress.storm.workload import Wish, draw_wish

CALLS_AT_ONCE = 3
RECONNECT_SECONDS = 60.0


class AsyncActions:
    """The ways in which an asyncio client uses the server."""

    def __init__(self, client: AsyncClient, record: ClientRecord, folder: Path, rng: random.Random) -> None:
        self._client = client
        self._record = record
        self._folder = str(folder)
        self._rng = rng

    async def act(self) -> None:
        """Do something at random."""
        await self._rng.choice((self.submit_some, self.run_one, self.map_some, self.cancel_one))()

    async def submit_some(self) -> None:
        """Several futures, awaited together."""
        await asyncio.gather(*(self._submit_and_await() for _ in range(self._rng.randint(1, 6))))

    async def run_one(self) -> None:
        """A call that is awaited."""
        wish = self._wish("run")
        view = self._client.options(**wish.options)
        await self._note(wish.job.label, "", "async run", view.run(perform, wish.job))

    async def map_some(self) -> None:
        """A `map`."""
        isolation: Isolation = self._rng.choice(("task", "worker"))
        jobs = [self._wish("map", ("quick",), isolation).job for _ in range(self._rng.randint(2, 30))]
        since = time.monotonic()
        view = self._client.options(isolation=isolation)
        answer, values = await awaited_answer_of(view.map(perform, jobs, chunksize=self._rng.choice(("auto", 1))))
        if answer != "succeeded":
            self._record.told_of_all([job.label for job in jobs], "async map", since, answer, values)
            return
        for value in values:
            self._record.told(value["label"], value["task_id"], "async map", since, answer, value)

    async def cancel_one(self) -> None:
        """Cancel a task at some moment of its life."""
        wish = self._wish("submit", ("slow", "quick", "parent"))
        future = await self._client.options(**wish.options).submit(perform, wish.job)
        label, task_id = wish.job.label, future.task_id
        self._record.submitted(label, task_id)
        await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0.0, 0.3))))
        since = time.monotonic()
        self._record.log.write("cancels", label=label, task_id=task_id)
        self._record.cancelled(label, task_id, since, await self._client.cancel(task_id))
        await self._note(label, task_id, "async future", future)

    async def settle(self, label: str, task_id: str) -> None:
        """Ask for the end of a task that another process submitted, which was killed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            since = time.monotonic()
            answer, value = answer_of_result(await self._client.query_result(task_id, keep=True))
            self._record.told(label, task_id, "async query", since, answer, value)
            if answer != UNFINISHED or since > deadline:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _submit_and_await(self) -> None:
        wish = self._wish("submit")
        future = await self._client.options(**wish.options).submit(perform, wish.job)
        self._record.submitted(wish.job.label, future.task_id)
        await self._note(wish.job.label, future.task_id, "async future", future)

    def _wish(self, call: str, kinds: tuple[str, ...] = (), isolation: Isolation | None = None) -> Wish:
        wish = draw_wish(self._rng, self._folder, self._record.new_label(), kinds=kinds)
        if isolation is not None:
            wish = Wish(wish.job, {"isolation": isolation})
        self._record.asked(wish, call)
        return wish

    async def _note(self, label: str, task_id: str, by: str, said: Awaitable[Any]) -> None:
        since = time.monotonic()
        answer, value = await awaited_answer_of(asyncio.wait_for(said, PATIENCE_SECONDS))
        self._record.told(label, task_id, by, since, answer, value)
        if answer == REFUSED:
            await asyncio.sleep(PAUSE_SECONDS)


async def _connect(client: AsyncClient) -> None:
    """Return when it is connected: the first time a client does not wait for its server."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            await client.get_status()
            return
        except ServerUnreachable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(PAUSE_SECONDS)


async def work(folder: Path, name: str, rng: random.Random, place: Place, is_over: Callable[[], bool]) -> None:
    """Settle what a predecessor left, and work until it is over."""
    record = ClientRecord(folder / f"client-{name}a.jsonl", f"{name}a", reconnects=True)
    record.log.write("born", reconnects=True)
    authkey = (folder / "authkey").read_bytes()
    async with place.async_client(authkey, reconnect_seconds=RECONNECT_SECONDS) as client:
        await _connect(client)
        actions = AsyncActions(client, record, folder, rng)
        for one in record.unanswered():
            await actions.settle(one.label, one.task_id)
        while not is_over():
            await asyncio.gather(*(actions.act() for _ in range(CALLS_AT_ONCE)))
    record.log.write("done")
