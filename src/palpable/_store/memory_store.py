"""The store that forgets: the same interface and rules in memory, for tests and as the measure of the other one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

import msgspec

from palpable._core.task_state import FINAL, State
from palpable._store.store import Batch, StoreBroken, StoredResult, TaskRow, TaskState

STATES: Final = frozenset(State)


class MemoryStore:
    """Nothing in it survives the process."""

    def __init__(self) -> None:
        self.boot = 1
        self.store_id = secrets.token_hex(8)
        self.path = ""
        self._rows: dict[int, TaskRow] = {}
        self._states: dict[int, TaskState] = {}
        self._requests: dict[int, bytes] = {}
        self._results: dict[int, StoredResult] = {}
        self._outputs: dict[int, bytes] = {}
        self._functions: dict[str, bytes] = {}
        self._last_sequence = 0

    def write(self, batch: Batch) -> None:
        """Take the batch over, all or none."""
        _check(batch, self._rows)
        for key, data in batch.functions.items():
            self._functions.setdefault(key, data)
        for row, payload in batch.added:
            self._rows[row.sequence] = row
            self._requests[row.sequence] = payload
            self._last_sequence = max(self._last_sequence, row.sequence)
        for state in batch.states:
            if state.sequence in self._rows:
                self._replace_state(state)
        self._results.update((number, result) for number, result in batch.results if number in self._rows)
        self._outputs.update((number, output) for number, output in batch.outputs if number in self._rows)
        for number in batch.requests_done:
            self._requests.pop(number, None)
        for number in batch.results_taken:
            self._results.pop(number, None)
        for number in batch.forgotten:
            for table in (self._rows, self._states, self._requests, self._results, self._outputs):
                table.pop(number, None)

    def tidy(self) -> bool:
        """Remove functions that no task refers to."""
        used = {self._rows[number].function_key for number in self._requests}
        for key in self._functions.keys() - used:
            del self._functions[key]
        return False

    def unfinished(self, chunk_size: int = 10_000) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        """Yield the tasks that are not final, in chunks: running ones first, then higher priority, then by number."""
        tasks = [self._task(number) for number, state in self._states.items() if state.finished_at is None]
        yield from _chunks(
            sorted(tasks, key=lambda task: (task[1].state != "running", -task[0].priority, task[0].sequence)),
            chunk_size,
        )

    def finished(self, chunk_size: int = 10_000) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        """Yield the tasks that are final, in chunks, those that ended first first."""
        tasks = [self._task(number) for number, state in self._states.items() if state.finished_at is not None]
        yield from _chunks(sorted(tasks, key=lambda task: (task[1].finished_at, task[0].sequence)), chunk_size)

    def last_sequence(self) -> int:
        """Return the highest sequence number ever stored; 0 if there was none."""
        return self._last_sequence

    def request(self, sequence: int) -> bytes | None:
        """Return the payload of a task's request; None if it is not there (any more)."""
        return self._requests.get(sequence)

    def result(self, sequence: int) -> StoredResult | None:
        """Return how a task ended; None if it has not, or its result was taken."""
        return self._results.get(sequence)

    def output(self, sequence: int) -> bytes:
        """Return what a task printed."""
        return self._outputs.get(sequence, b"")

    def function(self, key: str) -> bytes | None:
        """Return a pickled function."""
        return self._functions.get(key)

    def size_bytes(self) -> int:
        """Return 0: nothing is on disk."""
        return 0

    def close(self) -> None:
        """Do nothing: it goes with its last user."""

    def _task(self, number: int) -> tuple[TaskRow, TaskState]:
        return self._rows[number], self._states[number]

    def _replace_state(self, new: TaskState) -> None:
        stored = self._states.get(new.sequence)
        if stored is not None:
            if new.boot < stored.boot:
                return
            if stored.finished_at is not None and (new.state, new.outcome) != (stored.state, stored.outcome):
                return
            if stored.is_taken:
                new = msgspec.structs.replace(new, is_taken=True)
        self._states[new.sequence] = new


def _check(batch: Batch, rows: dict[int, TaskRow]) -> None:
    """Refuse what the rules of the SQLite schema refuse.

    Raises:
        StoreBroken: it contradicts them.
    """
    added = [row.sequence for row, _ in batch.added]
    if len(set(added)) != len(added) or not set(added) <= {state.sequence for state in batch.states}:
        raise StoreBroken("a task was to be stored without its state, or twice. This is a bug of Palpable.")
    if not rows.keys().isdisjoint(added):
        raise StoreBroken("a sequence number was given out twice. This is a bug of Palpable.")
    for state in batch.states:
        is_final = state.state in FINAL
        is_consistent = (
            state.state in STATES
            and (state.finished_at is not None) == is_final
            and (state.outcome != "") == is_final
            and (state.outcome == "succeeded") == (state.state == "succeeded")
            and (is_final or not state.is_taken)
            and min(state.attempt, state.boot, state.errors, state.crashes) >= 0
        )
        if not is_consistent:
            raise StoreBroken(f"a state contradicts itself: {state}. This is a bug of Palpable.")


def _chunks(tasks: list[tuple[TaskRow, TaskState]], size: int) -> Iterator[list[tuple[TaskRow, TaskState]]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
