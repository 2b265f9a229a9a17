"""CPython's own tests of executors, run against ours.

They come with the interpreter (`test.test_concurrent_futures`; in this form since 3.13). Where they are not installed,
there is nothing to run. What is left out, and why, is said below.
"""

from __future__ import annotations

import unittest
from typing import Any

import pytest

from palpable import Executor

pytest.importorskip("test.test_concurrent_futures.util")

from test.test_concurrent_futures import executor as executor_tests
from test.test_concurrent_futures import test_as_completed as as_completed_tests
from test.test_concurrent_futures import test_init as init_tests
from test.test_concurrent_futures import test_process_pool as process_pool_tests
from test.test_concurrent_futures import test_shutdown as shutdown_tests
from test.test_concurrent_futures import test_wait as wait_tests
from test.test_concurrent_futures.util import ExecutorMixin

OWN_CLASS = "runs a program that names the class to import from concurrent.futures; ours: tests/integration"
START_METHOD = "is about multiprocessing's start methods; there is one way here, the zygote"
PRIVATE = "looks at private attributes of ProcessPoolExecutor"

LEFT_OUT = {
    "test_interpreter_shutdown": OWN_CLASS,
    "test_submit_after_interpreter_shutdown": OWN_CLASS,
    "test_hang_gh83386": OWN_CLASS,
    "test_killed_child": "a process that dies fails its own task only; the pool goes on",
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
}


class PalpableMixin(ExecutorMixin):
    """As the library's own mixins for its pools."""

    executor_type = Executor
    worker_count = 2

    def setUp(self) -> None:
        reason = LEFT_OUT.get(getattr(self, "_testMethodName", ""))
        if reason:
            raise unittest.SkipTest(reason)
        super().setUp()

    def tearDown(self) -> None:
        if hasattr(self, "executor"):
            super().tearDown()


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
