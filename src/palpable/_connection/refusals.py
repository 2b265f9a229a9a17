"""What callers are told when what they ask for can't be had."""

from __future__ import annotations

from palpable.units.task_exceptions import PayloadTooLarge, UnknownTask


def too_large(name: str, size_bytes: int, limit_bytes: int) -> PayloadTooLarge:
    """Return what to raise of a task that is larger than the server accepts.

    Args:
        name: of the task, if it has one.
    """
    return PayloadTooLarge(
        f"{name or 'the task'} and its arguments take {size_bytes} bytes pickled; the server accepts {limit_bytes}. "
        f"Pass large data by file or database, or raise the server's limit.",
        size_bytes=size_bytes,
        limit_bytes=limit_bytes,
    )


def unknown_task(task_id: str) -> UnknownTask:
    """Return what to raise of a task that the server does not know."""
    return UnknownTask(
        f"the server knows no task {task_id}: it never did, or its result expired or was taken", task_id=task_id
    )
