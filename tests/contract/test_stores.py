"""What every store promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable._core.task_state import FINAL, State
from palpable._store.memory_store import MemoryStore
from palpable._store.sqlite_store import SqliteStore
from palpable._store.store import Batch, Store, StoreBroken, StoredResult, TaskState
from support.stored_tasks import add_tasks, all_tasks, failed, ready, running, state_of, succeeded, task_row, tidy_up


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "jobs.db")
    yield store
    store.close()


def test_a_new_store_is_empty(store: Store) -> None:
    assert all_tasks(store) == {}
    assert store.last_sequence() == 0
    assert store.request(1) is None
    assert store.result(1) is None
    assert store.output(1) == b""
    assert store.function("key") is None


def test_a_store_has_an_id_and_numbers_its_first_boot_one(store: Store) -> None:
    assert len(store.store_id) == 16
    assert int(store.store_id, 16) >= 0
    assert store.boot == 1


def test_a_task_comes_back_with_every_field(store: Store) -> None:
    row = task_row(
        7, task_id="a", name="n\N{SNOWMAN}", form="f", function_key="k", policy='{"tags":["x"]}', priority=-3, depth=2
    )
    state = TaskState(
        sequence=7,
        state="retrying",
        attempt=3,
        boot=1,
        due_at=1.25,
        started_at=0.1,
        errors=2,
        crashes=1,
        error_type="builtins.ValueError",
        error_message='no\nsuch\0"thing"',
        exit_status=-9,
        cpu_seconds=1 / 3,
        peak_memory_bytes=1 << 40,
        followup_ids=("b", 'c"', ""),
    )
    store.write(Batch(added=[(row, b"\0payload")], states=[state]))
    assert all_tasks(store) == {7: (row, state)}
    assert store.request(7) == b"\0payload"


@pytest.mark.parametrize("state", State)
def test_every_state_of_the_table_can_be_stored(store: Store, state: State) -> None:
    outcome = {State.SUCCEEDED: "succeeded", State.FAILED: "error", State.CANCELLED: "cancelled"}.get(state, "")
    stored = TaskState(1, state.value, outcome, finished_at=1.0 if state in FINAL else None)
    store.write(Batch(added=[(task_row(1), b"")], states=[stored]))
    assert state_of(store, 1) == stored


def test_times_come_back_exactly(store: Store) -> None:
    started, finished = 1_732_479_923.1234567, 1_732_479_923.1234569
    store.write(Batch(added=[(task_row(1), b"")], states=[succeeded(1, started_at=started, finished_at=finished)]))
    state = state_of(store, 1)
    assert (state.started_at, state.finished_at) == (started, finished)


def test_unfinished_tasks_come_by_priority_and_then_by_number(store: Store) -> None:
    priorities = {1: 0, 2: 5, 3: -1, 4: 5, 5: 0, 6: 5}
    for number, priority in priorities.items():
        add_tasks(store, number, priority=priority)
    store.write(Batch(states=[succeeded(4)]))
    assert [row.sequence for chunk in store.unfinished() for row, _ in chunk] == [2, 6, 1, 5, 3]


def test_finished_tasks_come_in_the_order_of_their_end(store: Store) -> None:
    add_tasks(store, 1, 2, 3, 4)
    store.write(
        Batch(states=[succeeded(1, finished_at=30.0), failed(2, finished_at=10.0), succeeded(3, finished_at=20.0)])
    )
    assert [row.sequence for chunk in store.finished() for row, _ in chunk] == [2, 3, 1]


def test_chunks_have_the_size_that_was_asked_for(store: Store) -> None:
    add_tasks(store, *range(1, 8))
    assert [len(chunk) for chunk in store.unfinished(chunk_size=3)] == [3, 3, 1]


def test_what_is_written_during_a_reading_does_not_show_in_it(store: Store) -> None:
    add_tasks(store, 1, 2, 3, 4)
    reading = store.unfinished(chunk_size=2)
    first = next(reading)
    store.write(Batch(states=[succeeded(3)], forgotten=[4]))
    add_tasks(store, 5)
    assert [row.sequence for row, _ in first] == [1, 2]
    assert [(row.sequence, state.state) for row, state in next(reading)] == [(3, "ready"), (4, "ready")]
    assert list(reading) == []


def test_what_is_written_during_a_reading_can_be_read_at_once(store: Store) -> None:
    add_tasks(store, 1, 2)
    reading = store.unfinished(chunk_size=1)
    next(reading)
    add_tasks(store, 3)
    assert store.request(3) == b"request 3"
    assert len(list(reading)) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 700])
def test_a_batch_of_any_size_is_stored_whole(store: Store, count: int) -> None:
    numbers = range(1, count + 1)
    add_tasks(store, *numbers)
    store.write(
        Batch(
            states=[succeeded(number, cpu_seconds=float(number)) for number in numbers],
            results=[(number, StoredResult(b"%d" % number)) for number in numbers],
            outputs=[(number, b"out %d" % number) for number in numbers],
        )
    )
    stored = all_tasks(store)
    assert list(stored) == list(numbers)
    assert [state.cpu_seconds for _, state in stored.values()] == [float(number) for number in numbers]
    assert [store.result(number) for number in numbers] == [StoredResult(b"%d" % number) for number in numbers]
    assert [store.output(number) for number in numbers] == [b"out %d" % number for number in numbers]


def test_a_task_runs_through_its_life(store: Store) -> None:
    add_tasks(store, 1)
    for state in (running(1), ready(1, attempt=1, boot=1), running(1, attempt=2), succeeded(1, attempt=2)):
        store.write(Batch(states=[state]))
        assert state_of(store, 1) == state


def test_a_state_of_an_older_boot_changes_nothing(store: Store) -> None:
    add_tasks(store, 1)
    store.write(Batch(states=[running(1, boot=2)]))
    store.write(Batch(states=[succeeded(1, boot=1)]))
    assert state_of(store, 1) == running(1, boot=2)


@pytest.mark.parametrize(
    "later", [ready(1, boot=9), running(1, boot=9), succeeded(1, boot=9), failed(1, boot=9, outcome="lost")]
)
def test_a_final_state_is_never_taken_back(store: Store, later: TaskState) -> None:
    add_tasks(store, 1)
    store.write(Batch(states=[failed(1)]))
    store.write(Batch(states=[later]))
    assert state_of(store, 1) == failed(1)


def test_facts_are_added_to_a_final_state(store: Store) -> None:
    add_tasks(store, 1)
    store.write(Batch(states=[succeeded(1)]))
    complete = succeeded(1, exit_status=0, cpu_seconds=0.5, peak_memory_bytes=10, is_taken=True)
    store.write(Batch(states=[complete]))
    assert state_of(store, 1) == complete


def test_a_result_that_was_taken_stays_taken(store: Store) -> None:
    add_tasks(store, 1)
    store.write(Batch(states=[succeeded(1, is_taken=True)]))
    store.write(Batch(states=[succeeded(1, exit_status=0)]))
    assert state_of(store, 1) == succeeded(1, exit_status=0, is_taken=True)


def test_a_guard_that_holds_one_state_back_lets_the_others_of_the_batch_through(store: Store) -> None:
    add_tasks(store, 1, 2)
    store.write(Batch(states=[failed(1)]))
    store.write(Batch(states=[succeeded(1), succeeded(2)]))
    assert (state_of(store, 1).state, state_of(store, 2).state) == ("failed", "succeeded")


def test_a_state_of_an_unknown_task_changes_nothing(store: Store) -> None:
    store.write(Batch(states=[running(5)]))
    assert all_tasks(store) == {}


@pytest.mark.parametrize(
    "state",
    [
        TaskState(1, "asleep"),
        ready(1, finished_at=1.0),
        ready(1, outcome="error"),
        ready(1, is_taken=True),
        succeeded(1, finished_at=None),
        succeeded(1, outcome=""),
        succeeded(1, outcome="error"),
        failed(1, outcome="succeeded"),
        ready(1, attempt=-1),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(store: Store, state: TaskState) -> None:
    with pytest.raises(StoreBroken, match="bug of Palpable"):
        store.write(Batch(added=[(task_row(1), b"")], states=[state]))
    add_tasks(store, 1)
    with pytest.raises(StoreBroken, match="bug of Palpable"):
        store.write(Batch(states=[state]))
    assert state_of(store, 1) == ready(1)


def test_a_batch_that_is_refused_is_not_written_in_part(store: Store) -> None:
    add_tasks(store, 1)
    with pytest.raises(StoreBroken):
        store.write(
            Batch(
                functions={"key": b"function"},
                added=[(task_row(2), b"")],
                states=[ready(2), running(1), TaskState(1, "asleep")],
                forgotten=[1],
            )
        )
    assert all_tasks(store) == {1: (task_row(1), ready(1))}
    assert store.function("key") is None


def test_a_task_without_a_state_is_refused(store: Store) -> None:
    with pytest.raises(StoreBroken, match="without its state"):
        store.write(Batch(added=[(task_row(1), b"")]))


def test_a_sequence_number_can_be_given_out_once_only(store: Store) -> None:
    add_tasks(store, 1)
    with pytest.raises(StoreBroken, match="bug of Palpable"):
        add_tasks(store, 1)


def test_results_and_outputs_are_replaced(store: Store) -> None:
    add_tasks(store, 1)
    for text in (b"first", b"second"):
        store.write(Batch(results=[(1, StoredResult(text, "trace"))], outputs=[(1, text)]))
    assert store.result(1) == StoredResult(b"second", "trace")
    assert store.output(1) == b"second"


def test_a_result_without_a_value_differs_from_an_empty_one(store: Store) -> None:
    add_tasks(store, 1, 2)
    store.write(Batch(results=[(1, StoredResult(None)), (2, StoredResult(b""))]))
    assert store.result(1) == StoredResult(None)
    assert store.result(2) == StoredResult(b"")


def test_a_request_that_is_done_is_removed(store: Store) -> None:
    add_tasks(store, 1, 2)
    store.write(Batch(states=[succeeded(1)], requests_done=[1]))
    assert store.request(1) is None
    assert store.request(2) == b"request 2"


def test_a_result_that_is_taken_goes_and_the_output_stays(store: Store) -> None:
    add_tasks(store, 1)
    store.write(Batch(states=[succeeded(1)], results=[(1, StoredResult(b"data"))], outputs=[(1, b"printed")]))
    store.write(Batch(states=[succeeded(1, is_taken=True)], results_taken=[1]))
    assert store.result(1) is None
    assert store.output(1) == b"printed"
    assert state_of(store, 1).is_taken


def test_all_of_a_forgotten_task_is_removed(store: Store) -> None:
    add_tasks(store, 1, 2)
    store.write(Batch(states=[succeeded(1)], results=[(1, StoredResult(b"data"))], outputs=[(1, b"printed")]))
    store.write(Batch(forgotten=[1, 99]))
    assert list(all_tasks(store)) == [2]
    assert (store.request(1), store.result(1), store.output(1)) == (None, None, b"")


def test_what_comes_late_for_a_forgotten_task_is_not_kept(store: Store) -> None:
    add_tasks(store, 1)
    store.write(Batch(states=[succeeded(1)]))
    store.write(Batch(forgotten=[1]))
    store.write(Batch(states=[succeeded(1)], results=[(1, StoredResult(b"data"))], outputs=[(1, b"printed")]))
    assert all_tasks(store) == {}
    assert (store.result(1), store.output(1)) == (None, b"")


def test_a_batch_may_add_finish_and_forget_a_task_at_once(store: Store) -> None:
    store.write(Batch(added=[(task_row(1), b"")], states=[succeeded(1)], requests_done=[1], forgotten=[1]))
    assert all_tasks(store) == {}
    assert store.last_sequence() == 1


def test_numbers_of_forgotten_tasks_count_as_given_out(store: Store) -> None:
    add_tasks(store, 1, 2, 3)
    store.write(Batch(forgotten=[3, 2]))
    assert store.last_sequence() == 3
    store.write(Batch(forgotten=[1]))
    assert store.last_sequence() == 3
    add_tasks(store, 4)
    assert store.last_sequence() == 4


def test_a_number_that_was_never_stored_does_not_count_when_forgotten(store: Store) -> None:
    add_tasks(store, 1)
    store.write(Batch(forgotten=[1, 99]))
    assert store.last_sequence() == 1


def test_a_stored_function_is_left_as_it_is(store: Store) -> None:
    for data in (b"first", b"second"):
        store.write(Batch(functions={"key": data}))
    assert store.function("key") == b"first"


def test_functions_stay_as_long_as_a_request_refers_to_them(store: Store) -> None:
    functions = {"a": b"function a", "b": b"function b"}
    rows = [(task_row(1, function_key="a"), b""), (task_row(2, function_key="b"), b"")]
    store.write(Batch(functions=functions, added=rows, states=[ready(1), ready(2)]))
    store.write(Batch(states=[failed(1), failed(2)], requests_done=[2]))
    tidy_up(store)
    assert store.function("a") == b"function a"  # task 1 may be run again
    assert store.function("b") is None
    store.write(Batch(forgotten=[1]))
    tidy_up(store)
    assert store.function("a") is None


def test_a_function_that_was_removed_can_be_stored_again(store: Store) -> None:
    for number in (1, 2):
        row = task_row(number, function_key="a")
        store.write(Batch(functions={"a": b"function a"}, added=[(row, b"")], states=[ready(number)]))
        assert store.function("a") == b"function a"
        store.write(Batch(forgotten=[number]))
        tidy_up(store)
        assert store.function("a") is None


def test_an_empty_batch_is_false_and_any_change_makes_it_true() -> None:
    assert not Batch()
    assert Batch(requests_done=[1])
    assert Batch(results=[(1, StoredResult(b""))])


def test_closing_twice_is_allowed(store: Store) -> None:
    store.close()
    store.close()
