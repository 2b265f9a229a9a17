"""Both stores do the same, whatever they are told."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from palpable._core.task_state import FINAL, State
from palpable._store.memory_store import MemoryStore
from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, Store, StoreBroken, StoredResult, TaskRow, TaskState
from support.stored_tasks import tidy_up

NUMBERS = st.integers(1, 6)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
TIMES = st.none() | st.floats(0, 4e9)
KEYS = st.sampled_from(["", "f", "g"])
OUTCOMES = {State.SUCCEEDED: ["succeeded"], State.FAILED: ["error", "lost"], State.CANCELLED: ["cancelled"]}


@st.composite
def states(draw: st.DrawFn, sequence: int) -> TaskState:
    """Any state that does not contradict itself."""
    state = draw(st.sampled_from(State))
    is_final = state in FINAL
    return TaskState(
        sequence=sequence,
        state=state.value,
        outcome=draw(st.sampled_from(OUTCOMES.get(state, [""]))),
        attempt=draw(st.integers(0, 3)),
        boot=draw(st.integers(1, 3)),
        due_at=draw(TIMES),
        started_at=draw(TIMES),
        finished_at=draw(st.floats(0, 4e9)) if is_final else None,
        error_message=draw(TEXTS),
        exit_status=draw(st.none() | st.integers(-64, 255)),
        peak_memory_bytes=draw(st.none() | st.integers(0, 1 << 50)),
        is_taken=is_final and draw(st.booleans()),
        followup_ids=tuple(draw(st.lists(TEXTS, max_size=2))),
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    added = draw(st.lists(NUMBERS, max_size=3, unique=True))
    changed = draw(st.lists(NUMBERS, max_size=3, unique=True))
    numbers = st.lists(NUMBERS, max_size=2)
    pairs = st.lists(st.tuples(NUMBERS, st.binary(max_size=8)), max_size=2)
    rows = [
        TaskRow(n, draw(TEXTS), draw(TEXTS), "call", draw(KEYS), draw(TEXTS), draw(st.integers(-2, 2)), 1.5)
        for n in added
    ]
    return Batch(
        functions={row.function_key: row.function_key.encode() for row in rows if row.function_key},
        added=[(row, draw(st.binary(max_size=8))) for row in rows],
        states=[draw(states(number)) for number in dict.fromkeys(added + changed)],
        results=[(number, StoredResult(data or None, draw(TEXTS))) for number, data in draw(pairs)],
        outputs=draw(pairs),
        requests_done=draw(numbers),
        results_taken=draw(numbers),
        forgotten=draw(numbers),
    )


def _seen(store: Store) -> tuple[Any, ...]:
    """All that can be seen of a store."""
    numbers = range(1, 7)
    return (
        list(store.unfinished(chunk_size=2)),
        list(store.finished(chunk_size=2)),
        store.last_sequence(),
        [(store.request(number), store.result(number), store.output(number)) for number in numbers],
        [store.function(key) for key in ("f", "g")],
    )


def _told(store: Store, batch: Batch) -> str:
    try:
        store.write(batch)
    except StoreBroken:
        return "refused"
    return "written"


@settings(max_examples=60)
@given(st.lists(st.tuples(batches(), st.booleans()), max_size=8))
def test_the_stores_can_not_be_told_apart(batches: list[tuple[Batch, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        in_memory, on_disk = MemoryStore(), SqliteStore(Path(folder) / "jobs.db")
        try:
            for batch, tidies in batches:
                assert _told(in_memory, batch) == _told(on_disk, batch)
                if tidies:
                    tidy_up(in_memory)
                    tidy_up(on_disk)
                    assert _seen(in_memory) == _seen(on_disk)
            tidy_up(in_memory)
            tidy_up(on_disk)
            assert _seen(in_memory) == _seen(on_disk)
        finally:
            on_disk.close()
