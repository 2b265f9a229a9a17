"""The journal, over a store in memory."""

from __future__ import annotations

import asyncio

from palpable._core.task_policy import TaskPolicy
from palpable._core.task_record import TaskRecord
from palpable._store.memory_store import MemoryStore
from palpable.servants.journal import Journal
from palpable.servants.output_store import OutputStore
from palpable.servants.task_rows import TaskRows


def test_that_tasks_were_removed_is_on_disk_before_anyone_is_told() -> None:
    async def run() -> None:
        journal = Journal(
            MemoryStore(),
            OutputStore(1024),
            lambda key: b"",
            TaskRows(0.0, 1),
            has_many=lambda: False,
            on_committed=lambda: None,
            on_full=lambda: None,
            on_broken=lambda error: None,
        )
        journal.forget(TaskRecord("t", None, "f", "", TaskPolicy(), "task", 1, 0.0))
        assert journal.ticket > journal.committed
        await journal.wait_idle()
        assert journal.ticket == journal.committed
        await journal.close()

    asyncio.run(run())
