"""What a chunk gives back when one of its calls raises: the results of the calls before it, and then the error.

The server stores and passes on the payload of a failed task unseen. So both travel in it, one behind the other: a
mark, the length of the first, the pickled results, and the pickled exception, if it can be pickled.

Runs in: task processes, which write it, and clients, which read it.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from palpable._wire.caller_classes import dumps_for_caller

if TYPE_CHECKING:
    from palpable._wire.messages import Report

MARK = b"\x02"
"""No pickle begins with it, nor any form of a function."""
_HEADER_BYTES = 9


def dumps_chunk_failure(results: list[Any], error: bytes | None) -> bytes | None:
    """Return the payload for a chunk that failed after these results, with its exception pickled before.

    Results that can't be pickled end it: those before them are sent.
    """
    before = _dumps_as_many_as_can_be(results)
    if before is None:
        return error
    return MARK + len(before).to_bytes(_HEADER_BYTES - 1, "little") + before + (error or b"")


def _dumps_as_many_as_can_be(results: list[Any]) -> bytes | None:
    try:
        return dumps_for_caller(results) if results else None
    except Exception:  # __reduce__ and the like are the user's, and may raise anything
        return _dumps_as_many_as_can_be(results[: _first_unfit(results)])


def _first_unfit(results: list[Any]) -> int:
    """Return the place of the first that can't be pickled; 0, if all can be when they are alone."""
    for place, result in enumerate(results):
        try:
            dumps_for_caller(result)
        except Exception:  # as above
            return place
    return 0


def error_in(payload: bytes) -> bytes | None:
    """Return the pickled exception in the payload of a task that failed; None if it could not be pickled."""
    if payload[:1] != MARK:
        return payload
    end = _HEADER_BYTES + int.from_bytes(payload[1:_HEADER_BYTES], "little")
    return payload[end:] or None


def results_before(report: Report) -> list[Any]:
    """Return what the calls of a chunk returned before one of them raised; [] if that is not known."""
    payload = report.payload
    if payload is None or report.outcome != "error" or payload[:1] != MARK:
        return []
    end = _HEADER_BYTES + int.from_bytes(payload[1:_HEADER_BYTES], "little")
    try:
        results: list[Any] = pickle.loads(memoryview(payload)[_HEADER_BYTES:end])
    except Exception:  # their classes are the user's, and may raise anything; the error itself is raised next
        return []
    return results
