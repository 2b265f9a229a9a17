"""Random events and random crashes of the server: what was told stays true, and nothing accepted is lost.

The store is the one in memory, written in batches as the journal does; a crash forgets everything but the store.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from palpable._core import effects as out
from palpable._core import events
from palpable._core.engine import Engine
from palpable._core.invariants import validate
from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State
from palpable._store.memory_store import MemoryStore
from palpable._store.store import Batch
from palpable._wire.messages import TaskEnded, TaskRequest
from palpable.servants.order_queue import OrderQueue
from palpable.servants.task_rows import TaskRows


class Told(out.Effect, frozen=True):
    """Stands in the queue of orders where a client is told that its tasks are accepted."""

    task_ids: list[str]


class ByHandJournal:
    """A journal whose batches are begun and finished when the test says so."""

    def __init__(self, store: MemoryStore, rows: TaskRows) -> None:
        self.committed = self.last_cut = 0
        self.in_flight: list[tuple[int, Batch]] = []
        self.dirty: dict[str, TaskRecord] = {}
        self.new: set[str] = set()
        self._store, self._rows = store, rows

    @property
    def ticket(self) -> int:
        return self.last_cut + 1 if self.dirty else self.last_cut

    def mark(self, task: TaskRecord, *, is_new: bool = False) -> None:
        task.saved_in = self.last_cut + 1
        self.dirty[task.task_id] = task
        if is_new:
            self.new.add(task.task_id)

    def forget(self, task: TaskRecord) -> None:
        raise AssertionError("nothing is dropped here")

    def finish(self) -> None:
        """What was being written is on disk now."""
        if self.in_flight:
            self.committed, batch = self.in_flight.pop(0)
            self._store.write(batch)

    def begin(self) -> None:
        """Begin to write what has changed, as it stands now, unless a batch is being written."""
        if self.dirty and not self.in_flight:
            self.last_cut += 1
            batch = Batch()
            for task in self.dirty.values():
                if task.task_id in self.new:
                    batch.added.append((self._rows.row_of(task), b""))
                batch.states.append(self._rows.state_of(task))
            self.dirty, self.new = {}, set()
            self.in_flight.append((self.last_cut, batch))


class World:
    """A server with a store, its processes and its clients, and a memory of what anybody outside was told."""

    def __init__(self, seed: int, slot_count: int) -> None:
        self.rng = random.Random(seed)
        self.slot_count = slot_count
        self.store = MemoryStore()
        self.now = 1000.0
        self.boot = 0
        self.task_count = 0
        self.accepted: set[str] = set()
        self.policies: dict[str, TaskPolicy] = {}
        self.told: dict[str, tuple[State, Outcome]] = {}
        self.starts: list[tuple[str, int]] = []
        self.engine: Engine
        self.start_server()

    # --- the server ---

    def start_server(self) -> None:
        self.boot += 1
        self.rows = TaskRows(0.0, self.boot)
        self.engine = Engine(
            self.slot_count,
            retention_seconds=1e9,
            is_durable=True,
            first_sequence=self.store.last_sequence() + 1,
            rng=self.rng,
        )
        self.journal = ByHandJournal(self.store, self.rows)
        self.queue = OrderQueue(defaultdict(lambda: self.carry_out), lambda: None)
        self.queue.journal = self.journal
        self.isolation: dict[int, str] = {}
        self.sent: dict[int, deque[TaskRecord]] = {}
        self.attempts: dict[tuple[int, str], int] = {}
        self.claimed: dict[int, TaskRecord | None] = {}
        self.dying: set[int] = set()
        for chunk in self.store.unfinished(chunk_size=1_000):
            self.handle(events.TasksRecovered([self.rows.record_of(row, state, self.now) for row, state in chunk]))
        for chunk in self.store.finished():
            self.handle(events.ResultsRecovered([self.rows.record_of(row, state, self.now) for row, state in chunk]))

    def crash(self) -> None:
        """A batch that was being written may be on disk or not; what follows it is not."""
        if self.rng.random() < 0.5:
            self.journal.finish()
        self.start_server()

    def stop(self) -> None:
        self.handle(events.StopRequested(hands_back=True))
        while self.journal.dirty or self.journal.in_flight:
            self.commit()
        self.start_server()

    def handle(self, event: events.Event, told: Told | None = None) -> None:
        self.queue.enter(self.engine.handle(event, self.now), told)

    def commit(self) -> None:
        """Finish the batch that is being written, then begin the next."""
        self.journal.finish()
        self.journal.begin()
        self.queue.carry_out_due()

    def carry_out(self, effect: out.Effect) -> None:
        match effect:
            case Told():
                self.accepted.update(effect.task_ids)
            case out.StartRunner():
                self.isolation[effect.runner_id] = effect.isolation
                self.sent[effect.runner_id] = deque()
                self.claimed[effect.runner_id] = None
            case out.SendTasks():
                runner = self.engine.dispatcher.runners.get(effect.runner_id)
                if effect.runner_id in self.sent and runner is not None and not runner.is_ending:
                    for task in effect.tasks:
                        running = task.state is State.RUNNING
                        key = (effect.runner_id, task.task_id)
                        self.attempts[key] = task.attempt if running else task.attempt + 1
                    self.sent[effect.runner_id].extend(effect.tasks)
            case out.TakeBack():
                if effect.runner_id in self.sent:
                    count = len(self.sent[effect.runner_id])
                    self.sent[effect.runner_id].clear()
                    self.handle(events.TasksTakenBack(effect.runner_id, count))
            case out.KillRunner():
                self.dying.add(effect.runner_id)
            case out.TasksFinished():
                for task in effect.tasks:
                    self.tell(task)

    def tell(self, task: TaskRecord) -> None:
        final = (task.state, task.outcome)
        assert self.told.setdefault(task.task_id, final) == final, "an answer that was given was contradicted"

    # --- what may happen ---

    def submit(self) -> None:
        policy = TaskPolicy(
            isolation=self.rng.choice(["task", "worker"]),
            timeout_seconds=self.rng.choice([None, 5.0]),
            priority=self.rng.choice([0, 0, 1]),
            retries=self.rng.choice([0, 0, 2]),
            crash_retries=self.rng.choice([0, 0, 1]),
            at_most_once=self.rng.random() < 0.2,
            backoff_seconds=self.rng.choice([0.1, 5.0]),
        )
        new = []
        for _ in range(self.rng.randint(1, 5)):
            self.task_count += 1
            task_id = f"t{self.task_count}"
            self.policies[task_id] = policy
            request = TaskRequest(task_id, "call", self.rng.choice("ab"), b"", "f")
            new.append(request)
        due_at = self.now + 10.0 if self.rng.random() < 0.2 else None
        self.handle(events.TasksSubmitted(new, policy, due_at=due_at), Told([task.task_id for task in new]))

    def claim(self) -> None:
        for runner_id, sent in self.sent.items():
            if sent and self.claimed[runner_id] is None:
                task = self.claimed[runner_id] = sent.popleft()
                self.starts.append((task.task_id, self.attempts[runner_id, task.task_id]))

    def end_one(self) -> None:
        busy = [runner_id for runner_id, task in self.claimed.items() if task is not None]
        if busy:
            runner_id = self.rng.choice(busy)
            task, self.claimed[runner_id] = self.claimed[runner_id], None
            assert task is not None
            ending = TaskEnded(
                task_id=task.task_id,
                is_successful=self.rng.random() < 0.7,
                elapsed_seconds=1e-5,
                error_type="E",
                error_message="no",
                error_bases=("E",),
            )
            self.handle(events.TasksEnded(runner_id, [ending]))
            if self.isolation[runner_id] == "task":
                self.dying.add(runner_id)

    def exit_one(self, *, crash: bool) -> None:
        candidates = list(self.sent) if crash else [r for r in self.dying if r in self.sent]
        if candidates:
            runner_id = self.rng.choice(candidates)
            held = self.queue.held_tasks(runner_id)
            unclaimed = len(self.sent.pop(runner_id))
            self.claimed.pop(runner_id)
            if self.isolation[runner_id] == "task":
                unclaimed = 0  # a process of one task has no claim pipe: handed over is begun
            self.dying.discard(runner_id)
            self.handle(events.RunnerExited(runner_id, -9, 0.1, 1000, unclaimed + held))

    def cancel_some(self) -> None:
        known = sorted(self.engine.tasks)
        self.handle(events.EndRequested(self.rng.sample(known, k=min(len(known), 2))))

    def step(self) -> None:
        self.now += self.rng.choice([0.0, 0.001, 0.01, 1.0])
        self.claim()
        action = self.rng.choices(
            [
                self.submit,
                self.end_one,
                self.commit,
                lambda: self.exit_one(crash=False),
                lambda: self.exit_one(crash=True),
                self.cancel_some,
                lambda: self.handle(events.TimePassed()),
                self.crash,
                self.stop,
            ],
            weights=[3, 8, 14, 5, 1, 0.7, 3, 0.8, 0.3],
        )[0]
        action()
        self.check()

    def check(self) -> None:
        assert validate(self.engine) == []
        assert self.accepted <= self.engine.tasks.keys(), "an accepted task is lost"
        for task_id, final in self.told.items():
            task = self.engine.tasks[task_id]
            assert (task.state, task.outcome) == final, "an answer that was given was contradicted"
        assert len(set(self.starts)) == len(self.starts), "one attempt was begun twice"
        for task_id, attempt in self.starts:
            task = self.engine.tasks.get(task_id)
            assert task is not None and attempt <= task.attempt + 1, "an attempt was begun and not recorded"
            assert attempt == 1 or not self.policies[task_id].at_most_once, "what may run once was run again"

    def drain(self) -> None:
        for _ in range(3_000):
            if self.accepted <= self.told.keys():
                return
            self.now += 1.0
            self.claim()
            self.handle(events.TimePassed())
            self.commit()
            self.end_one()
            self.exit_one(crash=False)
        missing = {task_id: self.engine.tasks[task_id].state for task_id in self.accepted - self.told.keys()}
        raise AssertionError(f"these never ended: {missing}")


@settings(max_examples=120)
@given(seed=st.integers(0, 2**32), slot_count=st.integers(1, 3), steps=st.integers(1, 200))
def test_whenever_the_server_crashes_nothing_accepted_is_lost_or_doubled_and_no_answer_is_contradicted(
    seed: int, slot_count: int, steps: int
) -> None:
    world = World(seed, slot_count)
    for _ in range(steps):
        world.step()
    # Those told of before a crash are final in the store; nobody is told again.
    world.told.update(
        {task.task_id: (task.state, task.outcome) for task in world.engine.tasks.values() if task.is_final}
    )
    world.drain()
    world.check()
