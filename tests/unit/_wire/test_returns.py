"""What a process that runs many tasks says by its returns pipe."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palpable._wire import returns
from palpable._wire.framing import FrameError, encode
from palpable._wire.messages import TaskEnded, TaskReport, TaskReturned
from palpable._wire.returns import RECORD_MAX_BYTES, ReturnsReader, number_of


def record(count: int, task_id: str = "t", payload: bytes = b"x") -> bytes:
    return encode(TaskReturned(task_id, payload, 0.5, 0.25, 1 << 20, 3, 4, number_of(count)))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 1 << 33))
def test_the_records_of_each_read_are_found_wherever_the_numbers_stand(sizes: list[int], before: int) -> None:
    reader = ReturnsReader()
    reader._count = before % (1 << 31)
    count = before
    for size in sizes:
        data = b"".join(record(count + place, f"t{count + place}", bytes([place] * place)) for place in range(size))
        returned = reader.feed(data)
        assert [one.task_id for one in returned] == [f"t{count + place}" for place in range(size)]
        assert [one.payload for one in returned] == [bytes([place] * place) for place in range(size)]
        count += size


@pytest.mark.parametrize("count", [0, 1, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40])
def test_a_number_takes_five_bytes(count: int) -> None:
    assert len(encode(number_of(count))) == 5


def test_the_smallest_record_is_no_smaller_than_is_taken_for_granted() -> None:
    smallest = encode(TaskReturned("", b"", 0.0, 0.0, 0, 0, 0, number_of(0)))
    assert len(smallest) >= returns._RECORD_MIN_BYTES
    assert ReturnsReader().feed(smallest)[0].task_id == ""


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\xff" * 4,
        b"garbage of some length",
        bytes(100),
        record(0)[:-1],
        record(0)[1:],
        record(1),
        record(0) + record(2),
        record(1) + record(0),
        record(0) + record(0)[3:],
        encode(TaskReturned("t", b"", -1.0, 0.0, 0, 0, 0, number_of(0))),
        encode(TaskReturned("t", b"", 1.0, 0.0, -1, 0, 0, number_of(0))),
        encode(TaskReturned("t", b"", 1.0, 0.0, 0, 0, 1 << 63, number_of(0))),
        encode([b"\xff", b"", 1.0, 0.0, 0, 0, 0, number_of(0)]),
    ],
)
def test_what_is_no_record_or_not_the_next_one_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        ReturnsReader().feed(data)


def test_it_says_of_a_task_what_task_ended_says() -> None:
    ended = TaskEnded(task_id="t", is_successful=True)
    returned = TaskReturned("t", b"", 0.0, 0.0, 0, 0, 0, number_of(0))
    for name in set(TaskEnded.__struct_fields__) - {"imported", "searched", "payload"}:
        assert getattr(returned, name) == getattr(ended, name)


def test_a_client_is_told_what_a_report_says() -> None:
    report = TaskReport(task_id="t", state="succeeded", outcome="succeeded", attempt=1)
    returned = TaskReturned("t", b"", 0.0, 0.0, 0, 0, 0, number_of(0))
    measured = {"payload", "elapsed_seconds", "cpu_seconds", "peak_memory_bytes"}
    for name in set(TaskReport.__struct_fields__) - measured:
        assert getattr(returned, name) == getattr(report, name), name
    assert all(hasattr(returned, name) for name in measured)


def test_linux_shows_a_write_of_a_records_size_as_a_whole() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        written = 0
        sizes = [RECORD_MAX_BYTES - 7, 5, RECORD_MAX_BYTES, 100]
        with pytest.raises(BlockingIOError):
            while True:
                size = sizes[written % len(sizes)]
                assert os.write(writer, bytes([written % 256]) * size) == size
                written += 1
        data, place = os.read(reader, 1 << 20), 0
        for number in range(written):
            size = sizes[number % len(sizes)]
            assert data[place : place + size] == bytes([number % 256]) * size
            place += size
        assert place == len(data)
    finally:
        os.close(reader)
        os.close(writer)
