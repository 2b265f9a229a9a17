"""A task that ends badly ends alone, and its result says what happened."""

from __future__ import annotations

import concurrent.futures.process
import signal
from typing import Any

import pytest

from palpable import Client, RunFunction, TaskResult
from palpable.units.task_exceptions import PalpableError, TaskCrashed, TaskFailed
from support import tasks

pytestmark = pytest.mark.shared_server


def _end(client: Client, function: Any, *args: Any) -> TaskResult:
    return client.run_procedure(RunFunction(function, *args), waiting_seconds=-1)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_os_exit_is_a_crash_that_names_its_code(client: Client, code: int) -> None:
    result = _end(client, tasks.exit_at_once, code)
    assert result.is_successful is False
    assert isinstance(result.data, TaskCrashed)
    assert result.exit_status == result.data.exit_status == code
    assert str(code) in str(result.data)
    assert "last words" in result.data.output_tail


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS])
def test_death_by_a_signal_is_a_crash_that_names_it(client: Client, number: signal.Signals) -> None:
    result = _end(client, tasks.die_by_signal, int(number))
    assert isinstance(result.data, TaskCrashed)
    assert result.exit_status == -number
    assert number.name in str(result.data)


def test_a_segfault_is_a_crash_that_names_it(client: Client) -> None:
    result = _end(client, tasks.read_address_zero)
    assert isinstance(result.data, TaskCrashed)
    assert result.exit_status == -signal.SIGSEGV
    assert "SIGSEGV" in str(result.data)
    assert "last words" in result.data.output_tail


def test_a_crash_is_also_a_broken_process_pool(client: Client) -> None:
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        client.run(tasks.exit_at_once, 3)


def test_a_stopped_task_process_is_no_crash_and_can_be_cancelled(client: Client) -> None:
    future = client.submit(tasks.die_by_signal, int(signal.SIGSTOP))
    assert future.cancel()
    assert client.run(tasks.double, 2) == 4


def test_too_much_memory_is_a_memory_error_of_that_task(client: Client) -> None:
    with pytest.raises(MemoryError):
        client.run(tasks.exceed_memory, 1_500_000_000)
    assert client.run(tasks.double, 2) == 4


def test_a_task_that_closes_all_its_descriptors_ends_with_a_clear_error(client: Client) -> None:
    with pytest.raises(TaskCrashed):
        client.run(tasks.close_all_descriptors, None)
    assert client.run(tasks.double, 2) == 4


def test_a_task_that_closes_all_its_descriptors_and_exits_is_a_crash(client: Client) -> None:
    result = _end(client, tasks.close_all_and_exit, 5)
    assert isinstance(result.data, TaskCrashed)
    assert result.exit_status == 5


def test_a_child_that_leaves_by_pythons_exit_does_not_end_the_task_of_its_parent(client: Client) -> None:
    assert client.run(tasks.fork_and_exit_in_child, None) > 0


def test_a_child_that_goes_on_as_if_it_were_the_task_gives_no_second_answer(client: Client) -> None:
    assert client.run(tasks.fork_and_return_in_both, None) > 0
    assert client.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("code", [0, 3, "a reason", None])
def test_sys_exit_fails_the_task_and_nothing_else(client: Client, code: Any) -> None:
    with pytest.raises((SystemExit, PalpableError)):
        client.run(tasks.exit_by_python, code)
    assert client.run(tasks.double, 2) == 4


def test_keyboard_interrupt_raised_by_a_task_is_its_own_failure(client: Client) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt("from the task")

    with pytest.raises((KeyboardInterrupt, PalpableError)):
        client.run(interrupt, None)
    assert client.run(tasks.double, 2) == 4


def test_an_expected_failure_and_an_unexpected_one_arrive_as_instances(client: Client) -> None:
    def fail(_: object) -> None:
        raise TaskFailed("why")

    expected = _end(client, fail, None)
    unexpected = _end(client, tasks.half, 3)
    assert expected.is_successful is False and type(expected.data) is TaskFailed and expected.data.args == ("why",)
    assert unexpected.is_successful is False and type(unexpected.data) is tasks.OddNumber
    assert unexpected.data.number == 3


def test_an_exception_carries_the_remote_traceback_as_its_cause(client: Client) -> None:
    with pytest.raises(tasks.OddNumber) as caught:
        client.run(tasks.half, 3)
    text = str(caught.value.__cause__)
    assert "raise OddNumber(number)" in text
    assert "in half" in text
    assert "_zygote" not in text


def test_a_crash_does_not_touch_the_tasks_beside_it(client: Client) -> None:
    good = [client.submit(tasks.double, number) for number in range(20)]
    bad = [client.submit(tasks.exit_at_once, number) for number in range(1, 6)]
    assert [future.result(timeout=20) for future in good] == [number * 2 for number in range(20)]
    for number, future in enumerate(bad, start=1):
        with pytest.raises(TaskCrashed) as caught:
            future.result(timeout=20)
        assert caught.value.exit_status == number


def test_many_crashes_in_a_row_leave_the_server_well(lone_client: Client) -> None:
    for future in [lone_client.submit(tasks.exit_at_once, 1) for _ in range(50)]:
        with pytest.raises(TaskCrashed):
            future.result(timeout=20)
    assert lone_client.map(tasks.double, range(10)) == [number * 2 for number in range(10)]


def test_the_result_of_a_success_says_what_it_took(client: Client) -> None:
    result = _end(client, tasks.burn_cpu, 0.3)
    assert result.is_successful is True
    assert result.exit_status == 0
    assert result.attempt == 1
    assert 0.3 <= result.cpu_seconds < 2
    assert 0.3 <= result.elapsed_seconds < 10
    assert result.peak_memory_bytes > 1_000_000


def test_peak_memory_is_that_of_the_task_alone(lone_client: Client) -> None:
    large = _end(lone_client, tasks.keep_ballast, 200_000_000)
    small = _end(lone_client, tasks.double, 2)
    assert large.peak_memory_bytes > 200_000_000
    assert small.peak_memory_bytes < 100_000_000


def test_cpu_time_of_waited_children_counts(client: Client) -> None:
    def burn_in_child(seconds: float) -> None:
        import subprocess
        import sys

        code = f"import time\nwhile time.process_time() < {seconds}: pass"
        subprocess.run([sys.executable, "-c", code], check=True)

    assert _end(client, burn_in_child, 0.4).cpu_seconds >= 0.4


def test_the_result_of_a_crash_says_what_it_took(client: Client) -> None:
    def burn_and_die(seconds: float) -> None:
        tasks.burn_cpu(seconds)
        tasks.exit_at_once(9)

    result = _end(client, burn_and_die, 0.2)
    assert result.exit_status == 9
    assert result.cpu_seconds >= 0.2
    assert result.elapsed_seconds >= 0.2
    assert result.peak_memory_bytes > 1_000_000
    assert result.attempt == 1


def test_in_isolation_worker_a_result_says_what_its_own_task_took(lone_client: Client) -> None:
    warm = lone_client.options(isolation="worker")
    long, short = _end(warm, tasks.burn_cpu, 0.3), _end(warm, tasks.double, 2)
    assert long.cpu_seconds >= 0.3
    assert short.cpu_seconds < 0.2
