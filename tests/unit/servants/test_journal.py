"""The journal, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._store.memory_store import MemoryStore
from palpable._store.store import Batch, StoreBroken, StoreFull
from palpable._wire.messages import TaskRequest
from palpable.servants import journal as journal_module
from palpable.servants.journal import Journal
from palpable.servants.output_store import OutputStore
from palpable.servants.task_rows import TaskRows

WAIT_SECONDS = 20


class Diary:
    """A journal, and what it has said."""

    def __init__(self, store: MemoryStore, function_of: Callable[[str], bytes] = lambda key: b"function") -> None:
        self.said: list[Any] = []
        self.journal = Journal(
            store,
            OutputStore(1024),
            function_of,
            TaskRows(0.0, 1),
            has_many=lambda: False,
            on_committed=lambda: self.said.append("committed"),
            on_full=lambda: self.said.append("full"),
            on_broken=self.said.append,
        )

    async def settle(self) -> None:
        """Return when nothing is left to be written that can be."""
        await asyncio.wait_for(self.journal.wait_idle(), WAIT_SECONDS)


class FailingStore(MemoryStore):
    """Fails as it is told, then works."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    def write(self, batch: Batch) -> None:
        if self._errors:
            raise self._errors.pop(0)
        super().write(batch)


def _task(sequence: int, function_key: str = "") -> TaskRecord:
    request = TaskRequest(f"task-{sequence}", "call", function_key, b"request", "f")
    return TaskRecord(f"task-{sequence}", request, "f", function_key, TaskPolicy(), "task", sequence, 0.0)


def _run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_that_tasks_were_removed_is_on_disk_before_anyone_is_told() -> None:
    async def scene() -> None:
        diary = Diary(MemoryStore())
        journal = diary.journal
        journal.forget([_task(1)])
        assert journal.ticket > journal.committed
        await diary.settle()
        assert journal.ticket == journal.committed
        await journal.close()

    _run(scene())


def test_a_batch_that_cannot_be_made_breaks_the_store_with_the_reason_and_is_never_taken_for_written() -> None:
    async def scene() -> None:
        def no_function(key: str) -> bytes:
            raise KeyError(key)

        store = MemoryStore()
        diary = Diary(store, no_function)
        journal = diary.journal
        journal.mark(_task(1), is_new=True)
        journal.mark(_task(2, function_key="gone"), is_new=True)
        await diary.settle()
        (error,) = diary.said
        assert isinstance(error, KeyError) and error.args == ("gone",)
        assert journal.ticket > journal.committed
        journal.mark(_task(3), is_new=True)
        await diary.settle()
        await journal.close()
        assert journal.ticket > journal.committed and diary.said == [error]
        assert store.last_sequence() == 0

    _run(scene())


def test_a_batch_that_cannot_be_made_while_another_is_written_does_not_take_that_one_along() -> None:
    async def scene() -> None:
        def function_of(key: str) -> bytes:
            raise StoreBroken(f"the function {key} is damaged")

        store = MemoryStore()
        diary = Diary(store, function_of)
        journal = diary.journal
        journal.mark(_task(1), is_new=True)
        await asyncio.sleep(0)  # the first batch is cut
        journal.mark(_task(2, function_key="bad"), is_new=True)
        await diary.settle()
        await journal.close()
        assert [str(said) for said in diary.said] == ["committed", "the function bad is damaged"]
        assert (journal.committed, store.last_sequence()) == (1, 1) and journal.ticket > 1

    _run(scene())


@pytest.mark.parametrize("error", [StoreBroken("damaged"), ZeroDivisionError("a bug")])
def test_a_batch_that_fails_breaks_the_store_with_the_reason_and_nothing_is_written_after_it(error: Exception) -> None:
    async def scene() -> None:
        store = FailingStore(error)
        diary = Diary(store)
        journal = diary.journal
        journal.mark(_task(1), is_new=True)
        await diary.settle()
        assert diary.said == [error]
        journal.mark(_task(2), is_new=True)
        await diary.settle()
        await journal.close()
        assert journal.ticket > journal.committed == 0
        assert store.last_sequence() == 0 and diary.said == [error]

    _run(scene())


def test_a_batch_without_room_is_written_whole_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "FULL_RETRY_SECONDS", 0.0)

    async def scene() -> None:
        store = FailingStore(StoreFull("no room"), StoreFull("no room"))
        diary = Diary(store)
        journal = diary.journal
        committed = asyncio.Event()
        journal._on_committed = committed.set
        journal.mark(_task(1, function_key="key"), is_new=True)
        await asyncio.wait_for(committed.wait(), WAIT_SECONDS)
        assert diary.said == ["full", "full"]
        assert journal.ticket == journal.committed and not journal.is_full
        assert (store.request(1), store.function("key")) == (b"request", b"function")
        await journal.close()

    _run(scene())
