"""What a task had printed goes with its failure, however it ended."""

from __future__ import annotations

import time

import pytest

from palpable import Client, TaskTimeout


def speak_and_hang(words: str) -> None:
    print(words, flush=True)
    time.sleep(1000)


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_a_task_over_its_time_leaves_its_last_words_each_time(client: Client, isolation: str) -> None:
    caller = client.options(isolation=isolation, timeout_seconds=1.5)  # type: ignore[arg-type]
    futures = [caller.submit(speak_and_hang, f"words {number}") for number in range(4)]
    errors = [future.exception(timeout=20) for future in futures]
    assert [type(error) for error in errors] == [TaskTimeout] * 4
    assert [error.output_tail for error in errors] == [f"words {number}" for number in range(4)]  # type: ignore[union-attr]
