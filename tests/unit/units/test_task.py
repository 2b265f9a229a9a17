"""A task and its id."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest

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


class Duck:
    def run(self, messenger: object) -> int:
        return 1


class Static:
    @staticmethod
    def run(messenger: object) -> int:
        return 1


@pytest.mark.parametrize("procedure", [5, None, abs, RunFunction, Duck, lambda messenger: 1])
def test_what_can_not_be_run_is_refused(procedure: Any) -> None:
    with pytest.raises(TypeError, match=r"object with a method run\(messenger\)") as caught:
        Task(procedure)
    assert repr(procedure) in str(caught.value)


@pytest.mark.parametrize("procedure", [RunFunction(abs, -1), Duck(), Static, Static()])
def test_what_has_a_run_to_call_is_a_procedure(procedure: Any) -> None:
    assert Task(procedure).procedure is procedure


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
