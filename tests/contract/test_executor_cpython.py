"""CPython's own tests of executors, run against ours.

They come with the interpreter (`test.test_concurrent_futures`; in this form since 3.13). Where they are not installed,
there is nothing to run. What is left out, and why, is said below.
"""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import pytest

from palpable import Executor

pytest.importorskip("test.test_concurrent_futures.util")

from test.test_concurrent_futures import executor as executor_tests
from test.test_concurrent_futures import test_as_completed as as_completed_tests
from test.test_concurrent_futures import test_deadlock as deadlock_tests
from test.test_concurrent_futures import test_init as init_tests
from test.test_concurrent_futures import test_process_pool as process_pool_tests
from test.test_concurrent_futures import test_shutdown as shutdown_tests
from test.test_concurrent_futures import test_wait as wait_tests
from test.test_concurrent_futures.util import ExecutorMixin

OWN_CLASS = "its program imports the class by name; see tests/integration"
START_METHOD = "start methods of `multiprocessing`; here is one way, the zygote"
PRIVATE = "private parts of `ProcessPoolExecutor`"
OWN_FAILURE = "what breaks when unpickled fails its own call; the pool goes on"
EXIT = "`sys.exit` ends the process of the call, which has crashed"

LEFT_OUT = {
    "test_interpreter_shutdown": OWN_CLASS,
    "test_submit_after_interpreter_shutdown": OWN_CLASS,
    "test_hang_gh83386": OWN_CLASS,
    "test_killed_child": "a process that dies fails its own call; the pool goes on",
    "test_max_tasks_per_child": START_METHOD,
    "test_max_tasks_per_child_defaults_to_spawn_context": START_METHOD,
    "test_max_tasks_early_shutdown": START_METHOD,
    "test_ressources_gced_in_workers": START_METHOD,
    "test_saturation": START_METHOD,
    "test_idle_process_reuse_one": PRIVATE,
    "test_idle_process_reuse_multiple": PRIVATE,
    "test_python_finalization_error": PRIVATE,
    "test_force_shutdown_workers": PRIVATE,
    "test_force_shutdown_workers_stops_pool": PRIVATE,
    "test_terminate_workers": PRIVATE,
    "test_kill_workers": PRIVATE,
    "test_process_pool_executor_terminate_workers": PRIVATE,
    "test_processes_terminate": PRIVATE,
    "test_context_manager_shutdown": PRIVATE,
    "test_del_shutdown": PRIVATE,
    "test_shutdown_no_wait": PRIVATE,
    "test_shutdown_deadlock_pickle": PRIVATE,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": PRIVATE,
    "test_error_at_task_unpickle": OWN_FAILURE,
    "test_error_during_result_unpickle_in_result_handler": OWN_FAILURE,
    "test_exit_during_result_unpickle_in_result_handler": OWN_FAILURE,
    "test_exit_during_func_exec_on_worker": EXIT,
    "test_exit_during_result_pickle_on_worker": EXIT,
}


class ExecutorWithoutContext(Executor):
    """Takes the one parameter of `ProcessPoolExecutor` that there is no use for here."""

    def __init__(self, *args: Any, mp_context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class PalpableMixin(ExecutorMixin):
    """As the library's own mixins for its pools."""

    executor_type = ExecutorWithoutContext
    worker_count = 2

    def setUp(self) -> None:
        reason = LEFT_OUT.get(getattr(self, "_testMethodName", ""))
        if reason:
            raise unittest.SkipTest(reason)
        super().setUp()

    def tearDown(self) -> None:
        if hasattr(self, "executor"):
            super().tearDown()

    def get_context(self) -> None:
        return None


def _against_ours(tests: Any) -> Any:
    return type(f"{tests.__name__}AgainstOurs", (tests, PalpableMixin, unittest.TestCase), {"__module__": __name__})


pytestmark = pytest.mark.slow

TestExecutor = _against_ours(executor_tests.ExecutorTest)
TestWait = _against_ours(wait_tests.WaitTests)
TestAsCompleted = _against_ours(as_completed_tests.AsCompletedTests)
TestShutdown = _against_ours(shutdown_tests.ExecutorShutdownTest)
TestInitializer = _against_ours(init_tests.InitializerMixin)
TestFailingInitializer = _against_ours(init_tests.FailingInitializerMixin)
TestProcessPool = _against_ours(process_pool_tests.ProcessPoolExecutorTest)
TestDeadlock = _against_ours(deadlock_tests.ExecutorDeadlockTest)


def test_the_page_on_executors_names_every_test_that_is_left_out_with_its_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "executor.md").read_text()
    for name, reason in LEFT_OUT.items():
        (line,) = [line for line in page.splitlines() if f"`{name}`" in line]
        assert reason in line
    assert page.count("| `test_") == len(LEFT_OUT)
