"""What a task process says of an end: the server computes with it, so it is what it should be, or nothing."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.messages import FromTaskProcess, TaskEnded


@pytest.mark.parametrize(
    "said",
    [
        {"elapsed_seconds": math.nan},
        {"elapsed_seconds": -1.0},
        {"peak_memory_bytes": 1 << 63},
        {"output_from": -1},
        {"output_to": 1 << 63},
    ],
)
def test_numbers_that_nothing_can_be_reckoned_with_are_no_message(said: dict[str, Any]) -> None:
    frame = encode_frame(msgspec.structs.replace(TaskEnded(task_id="t", is_successful=True), **said))
    with pytest.raises(FrameError):
        FrameReader(FromTaskProcess).feed(frame)
