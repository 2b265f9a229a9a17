"""The journal: what the server decides is on disk before anyone is told of it.

Runs in: the server process. One thread of it writes to the store; everything else is on the event loop.

Changes are gathered while the thread is busy with those before them (group commit), so a single call costs one commit,
and many at once cost no more. A batch holds the tasks that changed, as they stand when the batch is cut: a task that
was submitted and started meanwhile is one row.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome
from palpable._store.store import Batch, Store, StoredResult, StoreFull
from palpable.servants.output_store import OutputStore
from palpable.servants.task_rows import TaskRows

FULL_RETRY_SECONDS = 0.25
"""How often a batch is tried again that the disk had no room for. Room that is made has no event to wait for; nothing
is tried unless something waits to be written."""
GATHER_SECONDS = 0.003
"""While many tasks are on their way, a batch begins no sooner than this after the last one: nobody waits for a single
one of them, and each commit costs a tenth of a fresh process."""
TIDY_SECONDS, BUSY_TIDY_SECONDS = 1.0, 5.0
"""How often, at most, the writer looks whether there is room to give back: with nothing to write, and when there
always is. Only after something was written."""
# What is known of a record, in `TaskRecord.unsaved`.
_DIRTY, _NEW, _HAS_RESULT, _IS_DONE, _IS_TAKEN = 1, 2, 4, 8, 16


class Journal:
    """Writes tasks to a store.

    Args:
        store: written by the journal's thread, from `start` to `close`.
        outputs: what tasks printed.
        function_of: returns a pickled function by its key.
        rows: makes rows of records.
        has_many: whether so many tasks are on their way that none of them is waited for by itself.
        on_committed: called after a batch is on disk.
        on_full: called when a batch was not written because there is no room. It is tried again.
        on_broken: called with the error when the store can't be written any more.
    """

    def __init__(
        self,
        store: Store,
        outputs: OutputStore,
        function_of: Callable[[str], bytes],
        rows: TaskRows,
        has_many: Callable[[], bool],
        on_committed: Callable[[], None],
        on_full: Callable[[], None],
        on_broken: Callable[[Exception], None],
    ) -> None:
        self.store = store
        self.committed = 0
        """All batches up to this number are on disk."""
        self.is_full = False
        self._is_broken = False
        self._outputs = outputs
        self._function_of = function_of
        self._rows = rows
        self._has_many = has_many
        self._on_committed, self._on_full, self._on_broken = on_committed, on_full, on_broken
        self._dirty: list[TaskRecord] = []
        self._forgotten: list[TaskRecord] = []
        self._last_cut = 0
        self._cut_at = 0.0
        self._is_writing = False
        self._is_due = False
        self._orders: queue.SimpleQueue[tuple[int, Batch] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._write_all, name="palpable-journal", daemon=True)
        self._thread.start()

    # --- marking ------------------------------------------------------------------------------------------------------

    def mark(self, task: TaskRecord, *, is_new: bool = False) -> None:
        """Write this task with the next batch."""
        task.saved_in = self._last_cut + 1
        if not task.unsaved & _DIRTY:
            task.unsaved |= _DIRTY | (_NEW if is_new else 0)
            self._dirty.append(task)
            self._flush_soon()

    def forget(self, tasks: list[TaskRecord]) -> None:
        """Remove these tasks with the next batch."""
        self._forgotten.extend(tasks)
        self._flush_soon()

    @property
    def ticket(self) -> int:
        """The number of the batch that holds everything marked so far."""
        return self._last_cut + 1 if self._dirty or self._forgotten else self._last_cut

    async def wait_idle(self) -> None:
        """Return when everything marked is on disk, or can't be written."""
        await self._idle.wait()

    async def close(self) -> None:
        """End the thread after its last batch, and close the store."""
        self._orders.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._join_thread)
        self.store.close()

    def _join_thread(self) -> None:
        _leave_sigterm_to_others()
        self._thread.join()

    # --- cutting batches ----------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        # At the end of this turn of the event loop: what else comes in it goes along.
        if not self._is_due and not self._is_broken:
            self._is_due = True
            self._idle.clear()
            if not self._is_writing:
                self._cut_soon()

    def _cut_soon(self) -> None:
        pause = self._cut_at + GATHER_SECONDS - self._loop.time() if self._has_many() else 0.0
        if pause > 0:
            self._loop.call_later(pause, self._cut)
        else:
            self._loop.call_soon(self._cut)

    def _cut(self) -> None:
        """Hand everything marked to the thread, unless it is busy; then it follows afterwards."""
        if self._is_writing or not self._is_due:
            return
        tasks, self._dirty = self._dirty, []
        forgotten, self._forgotten = self._forgotten, []
        self._is_due = False
        self._cut_at = self._loop.time()
        self._last_cut += 1  # also for one that can't be made: what waits for it is never told
        try:
            batch = self._batch(tasks, forgotten)
        except Exception as error:
            # Half of it may be marked as written, so it can't be made again. To go on without it would be to tell of
            # what is not on disk; to do nothing, to leave everybody waiting for ever.
            self._break(error)
            return
        self._is_writing = True
        self._cut_tasks, self._cut_forgotten = tasks, forgotten
        self._orders.put((self._last_cut, batch))

    def _batch(self, tasks: list[TaskRecord], forgotten: list[TaskRecord]) -> Batch:
        batch = Batch()
        gone = {task.sequence for task in forgotten}
        for task in forgotten:
            if not task.unsaved & _NEW:  # else it was never stored
                batch.forgotten.append(task.sequence)
        for task in tasks:
            flags = task.unsaved
            task.unsaved = flags & ~(_DIRTY | _NEW)
            if task.sequence in gone:
                continue
            if flags & _NEW:
                self._add(task, batch)
            batch.states.append(self._rows.state_of(task))
            if task.is_final:
                self._add_end(task, flags, batch)
            output = self._outputs.unsaved(task.task_id)
            if output is not None:
                batch.outputs.append((task.sequence, output))
        return batch

    def _add(self, task: TaskRecord, batch: Batch) -> None:
        key, request = task.function_key, task.request
        if key and key not in batch.functions:
            batch.functions[key] = self._function_of(key)
        batch.added.append((self._rows.row_of(task), request.payload))

    def _add_end(self, task: TaskRecord, flags: int, batch: Batch) -> None:
        ending = task.ending
        if ending is not None and not flags & _HAS_RESULT:
            flags |= _HAS_RESULT
            batch.results.append((task.sequence, StoredResult(ending.payload, ending.traceback)))
        if task.outcome is Outcome.SUCCEEDED and not flags & _IS_DONE:
            flags |= _IS_DONE
            batch.requests_done.append(task.sequence)
        if task.is_taken and not flags & _IS_TAKEN:
            flags |= _IS_TAKEN
            batch.results_taken.append(task.sequence)
        task.unsaved = flags & ~(_DIRTY | _NEW)

    # --- what became of a batch ---------------------------------------------------------------------------------------

    def _written(self, number: int) -> None:
        self.committed = number
        self._is_writing = self.is_full = False
        if self._is_due:
            self._cut_soon()
        else:
            self._idle.set()
        self._on_committed()

    def _break(self, error: Exception) -> None:
        """Write nothing any more, and say why."""
        self._is_broken = True
        self._idle.set()
        self._on_broken(error)

    def _not_written(self, batch: Batch, error: Exception) -> None:
        if not isinstance(error, StoreFull):
            self._break(error)
            return
        self._idle.set()
        # Everything in it is due again, as it will stand then.
        self._is_writing = False
        added = {row.sequence for row, _ in batch.added}
        results = {sequence for sequence, _ in batch.results}
        for task in self._cut_tasks:
            undone = _IS_DONE | _IS_TAKEN | (_HAS_RESULT if task.sequence in results else 0)
            flags = task.unsaved & ~undone | (_NEW if task.sequence in added else 0)
            if not flags & _DIRTY:
                self._dirty.append(task)
            task.unsaved = flags | _DIRTY
            self._outputs.unsave(task.task_id)
        self._forgotten += self._cut_forgotten
        self._is_due = True
        self.is_full = True
        self._on_full()
        self._loop.call_later(FULL_RETRY_SECONDS, self._cut)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        """Until told to end: write a batch, say so, and tidy up when there is nothing to write."""
        _leave_sigterm_to_others()
        needs_tidying, tidied_at = False, 0.0
        while True:
            order = self._next_order(needs_tidying, tidied_at)
            if order is None:
                return
            if isinstance(order, _Tidy):
                tidied_at = time.monotonic()
                needs_tidying = self._tidy()
                continue
            number, batch = order
            try:
                self.store.write(batch)
            except Exception as error:
                self._say(self._not_written, batch, error)
            else:
                needs_tidying = True
                self._say(self._written, number)
                if time.monotonic() - tidied_at > BUSY_TIDY_SECONDS:
                    tidied_at = time.monotonic()
                    self._tidy_one_step()

    def _next_order(self, needs_tidying: bool, tidied_at: float) -> Any:
        if not needs_tidying:
            return self._orders.get()
        try:
            return self._orders.get(timeout=max(0.0, tidied_at + TIDY_SECONDS - time.monotonic()))
        except queue.Empty:
            return _Tidy()

    def _tidy(self) -> bool:
        """Tidy step by step, until there is something to write; return whether there is more to tidy."""
        while self._orders.empty():
            if not self._tidy_one_step():
                return False
        return True

    def _tidy_one_step(self) -> bool:
        try:
            return self.store.tidy()
        except Exception:
            return False  # no room, or broken: the next batch says so, and a batch is what somebody waits for

    def _say(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: the server ended without waiting for us


def _leave_sigterm_to_others() -> None:
    """Have no SIGTERM come to this thread.

    Python calls a thread ended, and lets who joins it go on, a moment before it has. By then the event loop may be
    closed and its signal handler gone, so that a SIGTERM would end a process that is about to end by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


class _Tidy:
    """In place of an order: there is none."""
