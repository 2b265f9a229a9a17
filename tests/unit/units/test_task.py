"""A task and its id."""

from __future__ import annotations

import re
import threading
import time

from palpable import RunFunction, Task
from palpable.units import task as task_module
from palpable.units.task import new_task_id


def test_a_task_has_an_id_and_a_time_from_its_making() -> None:
    before = time.time()
    procedure = RunFunction(abs, -1)
    first, second = Task(procedure), Task(procedure, is_source_blocking=True)
    assert first.procedure is procedure
    assert isinstance(first.task_id, str) and first.task_id != second.task_id
    assert before <= first.timestamp <= time.time()
    assert (first.is_source_blocking, second.is_source_blocking) == (False, True)
    assert first.task_id in repr(first) and "RunFunction" in repr(first)


def test_ids_are_hex_digits_of_one_length() -> None:
    assert all(re.fullmatch("[0-9a-f]{32}", new_task_id()) for _ in range(100))


def test_ids_are_unique_across_threads() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(new_task_id() for _ in range(2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8000


def test_a_forked_process_gets_another_prefix() -> None:
    before = new_task_id()
    task_module._forget_prefix()  # what the hook does after a fork
    assert new_task_id()[:20] != before[:20]
