"""What a server asks of its store: the interface, and the rows that cross it.

A store holds tasks by their sequence number, which the server gives out and never gives out again. Everything the
server knows of a task it also holds in memory, payloads of recovered tasks excepted; so a store is written all the
time, read in full once, at the start of a server, and otherwise asked for payloads.

Times with `_at` are UTC seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec


class TaskState(msgspec.Struct, frozen=True, gc=False):
    """What changes in the life of a task."""

    sequence: int
    state: str
    """One of `_core.task_state.State`."""
    outcome: str = ""
    attempt: int = 0
    boot: int = 0
    """The server start by which the last attempt was begun."""
    due_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    """Set exactly when the state is final."""
    errors: int = 0
    """Attempts that raised or timed out."""
    crashes: int = 0
    """Attempts whose process died."""
    error_type: str = ""
    error_message: str = ""
    exit_status: int | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    is_taken: bool = False
    """Its result was handed over, and is no longer in the store."""
    followup_ids: tuple[str, ...] = ()


class TaskRow(msgspec.Struct, frozen=True, gc=False):
    """A task, without what it is to run: its payload, which is beside it in `Batch.added`."""

    sequence: int
    task_id: str
    name: str
    form: str
    function_key: str
    policy: str
    """A `_core.task_policy.TaskPolicy` as JSON."""
    priority: int
    """As in the policy; for the order of recovery."""
    submitted_at: float
    parent_id: str = ""
    depth: int = 0


class StoredResult(msgspec.Struct, frozen=True, gc=False):
    """How a task ended, for whoever asks."""

    payload: bytes | None
    """The pickled return value or exception; None if there is none."""
    traceback: str = ""


class Batch(msgspec.Struct):
    """Changes that are written together: all or none. Applied in the order of the fields.

    Whoever fills it sees to it that a sequence number stands once in `states` at most, and that what is added is given
    its state in the same batch.
    """

    functions: dict[str, bytes] = msgspec.field(default_factory=dict)
    """Pickled functions by key: all that the added tasks need, every time, as a store removes those that no task refers
    to. One that is stored already is left as it is, and costs nothing; one that was found damaged is replaced."""
    added: list[tuple[TaskRow, bytes]] = msgspec.field(default_factory=list)
    """New tasks, each with the payload of its request."""
    states: list[TaskState] = msgspec.field(default_factory=list)
    """States that replace those stored; for a task that is not stored, nothing.

    One of an older boot than the stored one changes nothing (fencing). A final state is replaced only by the same state
    and outcome, with more facts; `is_taken` stays true once it is."""
    results: list[tuple[int, StoredResult]] = msgspec.field(default_factory=list)
    """By sequence number; replaces. Of a task that is not stored (any more): ignored."""
    outputs: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    """What tasks printed, by sequence number; replaces. Of a task that is not stored (any more): ignored."""
    requests_done: list[int] = msgspec.field(default_factory=list)
    """Tasks whose requests will never be run again: those payloads are removed."""
    results_taken: list[int] = msgspec.field(default_factory=list)
    """Tasks whose results were handed over: payload and traceback are removed, the output stays."""
    forgotten: list[int] = msgspec.field(default_factory=list)
    """Tasks to remove altogether. May name such as are not stored."""

    def __len__(self) -> int:
        """Count the changes; a batch without any is false."""
        return sum(len(getattr(self, name)) for name in self.__struct_fields__)


class StoreFull(Exception):
    """A batch was not written because there is no room; nothing of it was. It may be written again later."""


class StoreBroken(Exception):
    """The store can't be opened, read or written; the message says why and what to do."""


class Store(Protocol):
    """Keeps tasks. `write` and `tidy` are called by one thread, everything else by another, both at the same time."""

    boot: int
    """The number of this opening: 1 for the first, one more each time."""
    store_id: str
    """Made with the store: 16 hex characters."""
    path: str
    """Of the file; "" if there is none."""

    def write(self, batch: Batch) -> None:
        """Write the batch; when this returns it survives any crash.

        Raises:
            StoreFull: there is no room.
            StoreBroken: it can't be written, for another reason.
        """

    def tidy(self) -> bool:
        """Give some room back to the disk, and remove functions that no task refers to; return whether to go on.

        A small step: some milliseconds, with a flush of the disk some tens. Called when there is nothing to write.
        """

    def unfinished(self, chunk_size: int = 10_000) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        """Yield the tasks that are not final, in chunks: those that run first, then by priority and number.

        All as they were when the first chunk was asked for, whatever is written meanwhile.
        """

    def finished(self, chunk_size: int = 10_000) -> Iterator[list[tuple[TaskRow, TaskState]]]:
        """Yield the tasks that are final, in chunks, those that ended first first; as of one moment too."""

    def last_sequence(self) -> int:
        """Return the highest sequence number ever stored; 0 if there was none."""

    def request(self, sequence: int) -> bytes | None:
        """Return the payload of a task's request; None if it is not there (any more)."""

    def result(self, sequence: int) -> StoredResult | None:
        """Return how a task ended; None if it has not, or its result was taken."""

    def output(self, sequence: int) -> bytes:
        """Return what a task printed."""

    def function(self, key: str) -> bytes | None:
        """Return a pickled function; None if it is not there (any more).

        Raises:
            StoreBroken: it is damaged.
        """

    def size_bytes(self) -> int:
        """Return what it takes on disk."""

    def close(self) -> None:
        """Release everything. Safe to call twice."""
