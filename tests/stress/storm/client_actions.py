"""The ways in which a client of the storm uses the server: each asks for something and notes what it is told.

Runs in: clients.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from palpable import Client, TaskFuture
from palpable.units.option_levels import task_id_for_key
from palpable.units.task_exceptions import PalpableError, ServerUnreachable, UnknownTask
from palpable.units.task_options import Isolation
from stress.storm.answers import REFUSED, SILENCE, UNFINISHED, UNKNOWN, UNREACHABLE, answer_of, answer_of_result
from stress.storm.behaviours import Perform, perform
from stress.storm.client_record import ClientRecord
from stress.storm.workload import Wish, draw_wish

PATIENCE_SECONDS = 90.0
"""A client that has heard nothing for so long notes "silence", which is a fault of the server."""
ASK_AGAIN_SECONDS = 0.02
"""A client that asks again and again for a result, as web pages do, asks so often."""
SETTLE_SECONDS = 5.0
PAUSE_SECONDS = 0.1
"""A client that was refused waits so long before it goes on."""
PURGED_AGES = (6.0, 15.0)
"""What is purged ended so many seconds ago, at least."""
KEYS = 400
"""So many idempotency keys are shared by all clients."""
CHILDLESS = ("quick", "slow", "printing", "once")


class Actions:
    """What one thread of a client does."""

    def __init__(self, client: Client, record: ClientRecord, folder: Path, rng: random.Random) -> None:
        self._client = client
        self._record = record
        self._folder = str(folder)
        self._rng = rng
        self._choices: list[tuple[int, Callable[[], None]]] = [
            (30, self.submit_some),
            (12, self.run_one),
            (10, self.map_some),
            (5, self.map_a_burst),
            (6, self.iterate_over_some),
            (12, self.ask_until_it_ended),
            (10, self.keep_the_result),
            (14, self.cancel_one),
            (10, self.use_a_key),
            (8, self.retry_one),
            (8, self.follow_one),
            (4, self.purge_some),
        ]

    def act(self) -> None:
        """Do something at random.

        Raises:
            ServerUnreachable: the connection broke; what is unanswered can be found in the record.
        """
        weights = [weight for weight, _ in self._choices]
        self._rng.choices([action for _, action in self._choices], weights)[0]()

    # --- the ways -----------------------------------------------------------------------------------------------------

    def submit_some(self) -> None:
        """Several futures at once, then what each says."""
        futures: list[tuple[str, TaskFuture[Any]]] = []
        for _ in range(self._rng.randint(1, 6)):
            wish = self._wish("submit")
            futures.append((wish.job.label, self._submit(wish)))
        if self._rng.random() < 0.3:
            with suppress(ServerUnreachable):  # the futures say so too, or hold what arrived before
                for label, future in futures:
                    self._look(label, future.task_id)
        broken = None
        for label, future in futures:
            answer = self._record.tell(label, future.task_id, "future", partial(future.result, PATIENCE_SECONDS))
            broken = broken or (future if answer == UNREACHABLE else None)
            if answer == REFUSED:
                time.sleep(PAUSE_SECONDS)
        if broken is not None:
            broken.result(0)  # raises: whoever called has to connect anew

    def run_one(self) -> None:
        """A call that waits."""
        wish = self._wish("run")
        view = self._client.options(**wish.options)
        self._told_or_raise(wish.job.label, "", "run", lambda: view.run(perform, wish.job))

    def map_some(self) -> None:
        """A `map`, in one isolation or the other; in chunks, or a task for each."""
        self._map(self._rng.randint(2, 12), self._rng.choice(("task", "worker")), self._rng.choice(("auto", 1)))

    def map_a_burst(self) -> None:
        """A `map` of many that take no time: they are handed to processes in batches."""
        self._map(self._rng.randint(40, 150), "worker", 1, is_brief=True)

    def _map(
        self, count: int, isolation: Isolation, chunksize: int | Literal["auto"], *, is_brief: bool = False
    ) -> None:
        wishes = self._wishes("map", count, isolation, is_brief=is_brief)
        since = time.monotonic()
        view = self._client.options(isolation=isolation)
        answer, values = answer_of(lambda: view.map(perform, [wish.job for wish in wishes], chunksize=chunksize))
        self._note_all(wishes, "map", since, answer, values)

    def iterate_over_some(self) -> None:
        """An `imap_unordered`: each result is noted as it comes."""
        isolation: Isolation = self._rng.choice(("task", "worker"))
        wishes = self._wishes("imap", self._rng.randint(2, 12), isolation)
        since = time.monotonic()
        view = self._client.options(isolation=isolation)

        def iterate() -> list[Any]:
            values = []
            for value in view.imap_unordered(perform, [wish.job for wish in wishes], window=4):
                self._record.told(value["label"], value["task_id"], "imap", since, "succeeded", value)
                values.append(value)
            return values

        answer, values = answer_of(iterate)
        self._note_all(wishes, "imap", since, answer, values)

    def ask_until_it_ended(self) -> None:
        """A procedure that is not waited for; its result is asked for until it is there, and so taken."""
        wish = self._wish("run_procedure")
        view = self._client.options(**wish.options)
        task_id = view.run_procedure(Perform(wish.job), 0).task_id
        self._record.submitted(wish.job.label, task_id)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._look(wish.job.label, task_id, keep=False) == UNFINISHED and time.monotonic() < deadline:
            time.sleep(ASK_AGAIN_SECONDS)

    def keep_the_result(self) -> None:
        """Wait for a result that stays on the server, and ask for it twice more."""
        wish = self._wish("run_procedure")
        view = self._client.options(**wish.options)
        task_id = view.run_procedure(Perform(wish.job), 0).task_id
        self._record.submitted(wish.job.label, task_id)
        for _ in range(2):
            self._told_or_raise(
                wish.job.label, task_id, "result", lambda: self._client.result(task_id, PATIENCE_SECONDS)
            )
        self._look(wish.job.label, task_id)

    def cancel_one(self) -> None:
        """Cancel a task at some moment of its life."""
        wish = self._wish("submit", ("slow", "quick", "parent", "daemonic"))
        future = self._submit(wish)
        label, task_id = wish.job.label, future.task_id
        time.sleep(self._rng.choice((0.0, 0.0, self._rng.uniform(0.0, 0.3))))
        since = time.monotonic()
        # Before it is done: a client that is killed meanwhile may have cancelled.
        self._record.log.write("cancels", label=label, task_id=task_id)
        with suppress(ServerUnreachable):  # likewise
            self._record.cancelled(label, task_id, since, self._client.cancel(task_id))
        self._told_or_raise(label, task_id, "future", lambda: future.result(PATIENCE_SECONDS))

    def retry_one(self) -> None:
        """Wait until a task has failed, most likely, and have it run again as a new task."""
        wish = self._wish("submit", ("failing", "failing", "doomed", "quick"))
        label, future = wish.job.label, self._submit(wish)
        task_id = future.task_id
        self._told_or_raise(label, task_id, "future", lambda: future.result(PATIENCE_SECONDS))
        since = time.monotonic()
        self._record.retries(label, task_id)
        try:
            (new_id,) = self._client.retry([task_id])
        except ServerUnreachable:
            raise
        except PalpableError as error:
            self._record.retried(label, task_id, since, None, repr(error))
            time.sleep(PAUSE_SECONDS)
            return
        self._record.retried(label, task_id, since, new_id)
        if new_id is not None:
            self._told_or_raise(label, new_id, "result", lambda: self._client.result(new_id, PATIENCE_SECONDS))

    def follow_one(self) -> None:
        """Follow what a task prints, from before it begins to its end."""
        wish = self._wish("submit", ("printing",))
        label, future = wish.job.label, self._submit(wish)
        since = time.monotonic()
        try:
            text = "".join(self._client.logs(future.task_id, follow=True))
        except UnknownTask:  # refused
            pass
        else:
            self._record.followed(label, future.task_id, since, text)
        self._told_or_raise(label, future.task_id, "future", lambda: future.result(PATIENCE_SECONDS))

    def purge_some(self) -> None:
        """Have tasks forgotten that ended some time ago: longer than any client is away."""
        states = self._rng.choice((["failed"], ["cancelled"], ["failed", "cancelled"], ["succeeded"]))
        age_seconds = self._rng.uniform(*PURGED_AGES)
        since = time.monotonic()
        number = self._record.purges(states, age_seconds)
        self._record.purged(number, since, self._client.purge(states, age_seconds))

    def use_a_key(self) -> None:
        """Submit what others may have submitted already, under the same key."""
        number = self._rng.randrange(KEYS)
        rng = random.Random(number)  # the same job for whoever uses the key
        wish = draw_wish(rng, self._folder, f"key-{number}", kinds=CHILDLESS)
        self.use_this_key(wish)

    def use_this_key(self, wish: Wish) -> None:
        """Submit a job under its label as the key, and note what it says."""
        key, label = wish.job.label, wish.job.label
        self._record.asked(wish, "submit", key)
        future = self._client.options(**wish.options, idempotency_key=key).submit(perform, wish.job)
        assert future.task_id == task_id_for_key(key)
        self._record.submitted(label, future.task_id)
        self._told_or_raise(label, future.task_id, "future", lambda: future.result(PATIENCE_SECONDS))

    # --- their parts --------------------------------------------------------------------------------------------------

    def _wish(self, call: str, kinds: tuple[str, ...] = ()) -> Wish:
        wish = draw_wish(self._rng, self._folder, self._record.new_label(), kinds=kinds)
        self._record.asked(wish, call)
        return wish

    def _wishes(self, call: str, count: int, isolation: Isolation, *, is_brief: bool = False) -> list[Wish]:
        wishes = []
        for _ in range(count):
            job = draw_wish(self._rng, self._folder, self._record.new_label(), kinds=("quick",)).job
            wishes.append(Wish(replace(job, seconds=0.0) if is_brief else job, {"isolation": isolation}))
            self._record.asked(wishes[-1], call)
        return wishes

    def _submit(self, wish: Wish) -> TaskFuture[Any]:
        future = self._client.options(**wish.options).submit(perform, wish.job)
        self._record.submitted(wish.job.label, future.task_id)
        return future

    def _look(self, label: str, task_id: str, *, keep: bool = True) -> str:
        """Ask how a task stands."""
        since = time.monotonic()
        answer, value = answer_of_result(self._client.query_result(task_id, keep=keep))
        self._record.told(label, task_id, "query, kept" if keep else "query, taken", since, answer, value)
        if answer == UNKNOWN:
            time.sleep(PAUSE_SECONDS)
        return answer

    def _told_or_raise(self, label: str, task_id: str, by: str, call: Callable[[], Any]) -> None:
        """Note what a call says, and raise if that is that the connection broke."""
        errors: list[BaseException] = []

        def keeping_the_error() -> Any:
            try:
                return call()
            except BaseException as error:
                errors.append(error)
                raise

        answer = self._record.tell(label, task_id, by, keeping_the_error)
        if answer == UNREACHABLE:
            raise errors[0]
        if answer == REFUSED:
            time.sleep(PAUSE_SECONDS)

    def _note_all(self, wishes: list[Wish], by: str, since: float, answer: str, values: Any) -> None:
        """Note what one call said of many jobs."""
        if answer == "succeeded":
            for value in values:
                self._record.told(value["label"], value["task_id"], by, since, answer, value)
        else:
            self._record.told_of_all([wish.job.label for wish in wishes], by, since, answer, values)

    def settle(self, label: str, task_id: str) -> None:
        """Ask for the end of a task that was submitted over a connection that broke."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._look(label, task_id) == UNFINISHED and time.monotonic() < deadline:
            since = time.monotonic()
            answer, value = answer_of(lambda: self._client.result(task_id, SETTLE_SECONDS))
            answer = UNFINISHED if answer == SILENCE else answer  # so soon that is what it means
            self._record.told(label, task_id, "result", since, answer, value)
