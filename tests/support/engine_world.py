"""Everything around an engine, for property tests: see `World`."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from palpable._core import effects as out
from palpable._core import events
from palpable._core.engine import Engine
from palpable._core.invariants import validate
from palpable._core.task_policy import TaskPolicy
from palpable._core.task_state import Outcome, State
from palpable._wire.messages import TaskEnded, TaskRequest


class World:
    """Everything around the engine: runners that finish, crash and wait, clients that cancel and leave.

    It carries out effects as the server does, and keeps what it saw apart from the engine, to compare.
    """

    def __init__(self, seed: int, slot_count: int) -> None:
        self.rng = random.Random(seed)
        self.engine = Engine(slot_count, retention_seconds=1e9, max_tasks_per_process=self.rng.choice([None, 3]))
        self.slot_count = slot_count
        self.now = 0.0
        self.effects: deque[out.Effect] = deque()
        self.isolation: dict[int, str] = {}
        self.sent: dict[int, deque[str]] = {}
        self.claimed: dict[int, str | None] = {}
        self.dying: set[int] = set()
        self.open_waits: dict[int, tuple[str, list[str]]] = {}
        self.finals: dict[str, tuple[State, Outcome]] = {}
        self.settled: set[str] = set()
        self.starts: dict[str, int] = {}
        self.task_count = 0
        self.wait_count = 0

    def handle(self, event: events.Event) -> None:
        is_nested = bool(self.effects)
        self.effects.extend(self.engine.handle(event, self.now))
        while self.effects and not is_nested:
            self.carry_out(self.effects[0])
            self.effects.popleft()

    def carry_out(self, effect: out.Effect) -> None:
        match effect:
            case out.StartRunner():
                self.isolation[effect.runner_id] = effect.isolation
                self.sent[effect.runner_id] = deque()
                self.claimed[effect.runner_id] = None
            case out.SendTasks():
                self.sent[effect.runner_id].extend(task.task_id for task in effect.tasks)
            case out.TakeBack():
                runner_id = effect.runner_id
                count = len(self.sent.get(runner_id, ()))
                if runner_id in self.sent:
                    self.sent[runner_id].clear()
                    self.handle(events.TasksTakenBack(runner_id, count))
            case out.KillRunner():
                self.dying.add(effect.runner_id)
            case out.ReleaseWait() | out.RefuseWait():
                self.open_waits.pop(effect.wait_id, None)
            case out.TasksFinished():
                for task in effect.tasks:
                    assert task.task_id not in self.finals, "a task ended twice"
                    self.finals[task.task_id] = (task.state, task.outcome)
                    if task.is_settled:
                        self.settled.add(task.task_id)
            case out.TaskSettled():
                assert effect.task.task_id in self.finals, "settled before it was final"
                self.settled.add(effect.task.task_id)

    # --- what may happen ---

    def submit(self, parent_id: str = "") -> list[str]:
        new = []
        for _ in range(self.rng.randint(1, 6)):
            self.task_count += 1
            new.append(TaskRequest(f"t{self.task_count}", "call", self.rng.choice("abc"), b"", "f"))
        self.handle(
            events.TasksSubmitted(
                new,
                TaskPolicy(
                    isolation=self.rng.choice(["task", "worker"]),
                    timeout_seconds=self.rng.choice([None, 5.0]),
                    priority=self.rng.choice([0, 0, 1]),
                    ends_with_client=self.rng.random() < 0.2,
                    retries=self.rng.choice([0, 0, 2]),
                    crash_retries=self.rng.choice([0, 0, 1]),
                    retry_on=self.rng.choice([(), (), ("E",)]),
                    at_most_once=self.rng.random() < 0.1,
                    is_followup=self.rng.random() < 0.1,
                ),
                connection_id=self.rng.randint(1, 3),
                parent_id=parent_id,
                due_at=self.now + 5.0 if self.rng.random() < 0.1 else None,
            )
        )
        return [task.task_id for task in new]

    def claim(self) -> None:
        for runner_id, sent in self.sent.items():
            if sent and self.claimed[runner_id] is None:
                self.claim_next(runner_id)

    def claim_next(self, runner_id: int) -> None:
        task_id = self.claimed[runner_id] = self.sent[runner_id].popleft()
        self.starts[task_id] = self.starts.get(task_id, 0) + 1

    def busy(self) -> list[int]:
        waiting = {task_id for task_id, _ in self.open_waits.values()}
        return [r for r, t in self.claimed.items() if t is not None and t not in waiting and r in self.sent]

    def end_one(self) -> None:
        """A runner's task ends. Of a kept process, the server may hear of that when the next ones have ended too."""
        if runners := self.busy():
            runner_id = self.rng.choice(runners)
            endings = [self.end_claimed(runner_id)]
            while self.isolation[runner_id] == "worker" and self.sent[runner_id] and self.rng.random() < 0.4:
                self.claim_next(runner_id)
                endings.append(self.end_claimed(runner_id))
            self.handle(events.TasksEnded(runner_id, endings))
            if self.isolation[runner_id] == "task":
                self.dying.add(runner_id)

    def end_claimed(self, runner_id: int) -> TaskEnded:
        task_id, self.claimed[runner_id] = self.claimed[runner_id], None
        assert task_id is not None
        return TaskEnded(
            task_id=task_id,
            is_successful=self.rng.random() < 0.7,
            elapsed_seconds=self.rng.choice([1e-5, 1e-4, 0.1]),
            error_bases=("E",) if self.rng.random() < 0.7 else ("F",),
        )

    def exit_one(self, *, crash: bool) -> None:
        candidates = list(self.sent) if crash else [r for r in self.dying if r in self.sent]
        if candidates:
            runner_id = self.rng.choice(candidates)
            is_claimed_at_birth = self.isolation[runner_id] == "task"  # there is no claim pipe: handed over is begun
            if is_claimed_at_birth:
                self.sent[runner_id].clear()
            unclaimed = self.exit_of(runner_id)
            task_id = self.claimed.pop(runner_id)
            self.dying.discard(runner_id)
            for wait_id in [w for w, (waiter, _) in self.open_waits.items() if waiter == task_id]:
                del self.open_waits[wait_id]
            self.handle(events.RunnerExited(runner_id, -9, 0.1, 1000, unclaimed))

    def exit_of(self, runner_id: int) -> int:
        """Take away a process; return how many of the tasks handed to it it had not begun."""
        return len(self.sent.pop(runner_id))

    def wait_one(self) -> None:
        if runners := self.busy():
            waiter = self.claimed[self.rng.choice(runners)] or ""
            children = self.submit(parent_id=waiter) if self.engine.tasks[waiter].depth < 4 else []
            others = self.rng.sample(sorted(self.engine.tasks), k=min(2, len(self.engine.tasks)))
            wanted = children + (others if self.rng.random() < 0.3 else [])
            self.wait_count += 1
            self.open_waits[self.wait_count] = (waiter, wanted)
            self.handle(events.WaitBegan(waiter, 9, self.wait_count, wanted, self.rng.choice(["all", "any"])))

    def give_up_wait(self) -> None:
        if self.open_waits:
            wait_id = self.rng.choice(sorted(self.open_waits))
            waiter, _ = self.open_waits.pop(wait_id)
            self.handle(events.WaitEnded(waiter, 9, wait_id))

    def cancel_some(self) -> None:
        known = sorted(self.engine.tasks)
        ids = self.rng.sample(known, k=min(len(known), 3))
        self.handle(events.EndRequested([*ids, "unknown"], spares_running=self.rng.random() < 0.5))

    def take_some(self) -> None:
        known = sorted(self.finals)
        self.handle(events.ResultsTaken(self.rng.sample(known, k=min(len(known), 3))))

    def step(self) -> None:
        self.now += self.rng.choice([0.0, 0.001, 0.01, 1.0])
        self.claim()
        action = self.rng.choices(
            [
                self.submit,
                self.end_one,
                lambda: self.exit_one(crash=False),
                lambda: self.exit_one(crash=True),
                self.wait_one,
                self.give_up_wait,
                self.cancel_some,
                lambda: self.handle(events.ConnectionClosed(self.rng.randint(1, 3))),
                lambda: self.handle(events.TimePassed()),
                lambda: self.handle(events.DrainRequested(self.rng.random() < 0.3)),
                lambda: self.take_some(),
            ],
            weights=[3, 12, 6, 1, 3, 0.5, 0.7, 0.1, 2, 0.3, 1],
        )[0]
        action()

    def check(self) -> None:
        assert validate(self.engine) == []
        for task_id, final in self.finals.items():
            task = self.engine.tasks[task_id]
            assert (task.state, task.outcome) == final, "an answer that was given was contradicted"
            if task.outcome is Outcome.SUCCEEDED:
                # More: an attempt can time out before its order is on disk.
                assert task.attempt >= self.starts[task_id], "of an attempt it says nothing"
        in_slots = sum(1 for _ in self.engine.dispatcher.slots.runners())
        assert in_slots <= self.slot_count

    def drain(self) -> None:
        """Let everything come to its end, and nothing new be submitted."""
        self.handle(events.DrainRequested(False))
        for _ in range(2_000):
            if len(self.finals) == self.task_count and not self.dying:
                return
            self.now += 1.0
            self.claim()
            self.handle(events.TimePassed())
            if self.busy():
                self.end_one()
            self.exit_one(crash=False)
            self.check()
        unfinished = [task_id for task_id, task in self.engine.tasks.items() if not task.is_final]
        pytest.fail(f"these never ended: {unfinished}")


class HoldingWorld(World):
    """A world with a disk: what a runner is handed may have to wait, and what it is ordered next waits behind that.

    As `servants.order_queue` has it: a lane for each runner, and all that is in it comes due together.
    """

    def __init__(self, seed: int, slot_count: int) -> None:
        super().__init__(seed, slot_count)
        self.engine = Engine(
            slot_count,
            retention_seconds=1e9,
            is_durable=True,
            max_tasks_per_process=self.rng.choice([None, 3]),
        )
        self.lanes: dict[int, list[Any]] = {}
        self.hold_probability = self.rng.uniform(0.0, 0.8)
        self._due: list[Any] = []

    def carry_out(self, effect: out.Effect) -> None:
        if isinstance(effect, out.StartRunner | out.SendTasks | out.TakeBack | out.KillRunner):
            runner_id = effect.runner_id
            if effect in self._due:
                self._due.remove(effect)
            elif runner_id in self.lanes:
                self.lanes[runner_id].append(effect)
                return
            elif isinstance(effect, out.SendTasks) and self.rng.random() < self.hold_probability:
                self.lanes[runner_id] = [effect]
                return
            if not isinstance(effect, out.StartRunner) and runner_id not in self.sent:
                return  # its process is gone
            runner = self.engine.dispatcher.runners.get(runner_id)
            if isinstance(effect, out.SendTasks) and (runner is None or runner.is_ending):
                return
        super().carry_out(effect)

    def release(self, *, all_of_it: bool = False) -> None:
        """A commit: what waited for it is carried out, and what that brings about comes after."""
        for runner_id in list(self.lanes):
            if all_of_it or self.rng.random() < 0.5:
                self._due += (lane := self.lanes.pop(runner_id))
                self.effects.extend(lane)
                while self.effects:
                    self.carry_out(self.effects[0])
                    self.effects.popleft()

    def exit_of(self, runner_id: int) -> int:
        held = [order for order in self.lanes.pop(runner_id, ()) if isinstance(order, out.SendTasks)]
        return super().exit_of(runner_id) + sum(len(order.tasks) for order in held)

    def step(self) -> None:
        if self.rng.random() < 0.4:
            self.release()
        super().step()

    def drain(self) -> None:
        self.hold_probability = 0.0
        while self.lanes:
            self.release(all_of_it=True)
        super().drain()
