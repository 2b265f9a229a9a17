"""A task that fails is run again, as its options say."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, RunFunction, Server, TaskCancelled, TaskCrashed, TaskTimeout, task
from palpable.units.client import ClientView
from support import tasks
from support.scripts import run_script
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


@pytest.fixture(params=["task", "worker"])
def eager(client: Client, request: pytest.FixtureRequest) -> ClientView:
    """Retries at once."""
    return client.options(isolation=request.param, backoff_seconds=0)


def test_it_is_run_again_until_it_succeeds(eager: ClientView, tmp_path: Path) -> None:
    assert eager.options(retries=5).run(retrying, str(tmp_path)) == 3
    assert tasks.attempts_in(tmp_path) == 3


def retrying(folder: str) -> int:
    return tasks.succeed_at(folder, 3)


def test_the_last_error_is_raised_when_the_retries_are_used_up(eager: ClientView, tmp_path: Path) -> None:
    with pytest.raises(tasks.OddNumber, match="9 is odd"):
        eager.options(retries=2).submit(tasks.succeed_at, str(tmp_path), 9).result(timeout=20)
    assert tasks.attempts_in(tmp_path) == 3


def test_nothing_is_run_again_unless_asked(eager: ClientView, tmp_path: Path) -> None:
    with pytest.raises(tasks.OddNumber):
        eager.submit(tasks.succeed_at, str(tmp_path), 9).result(timeout=20)
    assert tasks.attempts_in(tmp_path) == 1


def test_the_result_says_which_attempt_it_is_of(client: Client, tmp_path: Path) -> None:
    view = client.options(retries=2, backoff_seconds=0)
    result = view.run_procedure(RunFunction(tasks.succeed_at, str(tmp_path), 2), waiting_seconds=-1)
    assert (result.data, result.attempt) == (2, 2)


RETRY_ON: list[tuple[Any, int]] = [
    (tasks.OddNumber, 3),
    (ValueError, 3),
    (Exception, 3),
    ((OSError, ValueError), 3),
    (OSError, 1),
    (TaskTimeout, 1),
    (None, 3),
]
"""What is asked for, and how often a task with two retries runs that raises an OddNumber, which is a ValueError."""


def test_it_is_run_again_after_errors_of_these_classes_and_their_subclasses_alone(
    eager: ClientView, tmp_path: Path
) -> None:
    for number, (retry_on, _) in enumerate(RETRY_ON):
        (tmp_path / str(number)).mkdir()
        future = eager.options(retries=2, retry_on=retry_on).submit(tasks.succeed_at, str(tmp_path / str(number)), 9)
        assert isinstance(future.exception(timeout=20), tasks.OddNumber)
    attempts = [tasks.attempts_in(tmp_path / str(number)) for number in range(len(RETRY_ON))]
    assert attempts == [expected for _, expected in RETRY_ON]


def test_classes_that_travel_by_value_are_known_by_their_name(client: Client, tmp_path: Path) -> None:
    class Refused(Exception):
        pass

    class Other(Exception):
        pass

    def refuse(folder: str) -> int:
        if tasks.note_attempt(folder) < 2:
            raise Refused
        return 2

    view = client.options(retries=1, backoff_seconds=0)
    assert view.options(retry_on=Refused).run(refuse, str(tmp_path)) == 2
    (tmp_path / "other").mkdir()
    with pytest.raises(Refused):
        view.options(retry_on=Other).run(refuse, str(tmp_path / "other"))


def test_classes_of_a_script_are_known_by_their_name(tmp_path: Path) -> None:
    run_script(
        tmp_path,
        """
        import palpable

        class Refused(Exception):
            pass

        class VeryMuchRefused(Refused):
            pass

        @palpable.task(retries=1, backoff_seconds=0, retry_on=Refused)
        def refuse_once():
            if palpable.current_task().attempt == 1:
                raise VeryMuchRefused
            return "at last"

        if __name__ == "__main__":
            with palpable.Server(num_workers=1) as server, server.client() as client:
                assert client.submit(refuse_once).result() == "at last"
        """,
    )


def test_what_takes_too_long_is_run_again(eager: ClientView, tmp_path: Path) -> None:
    view = eager.options(retries=1, timeout_seconds=0.4, retry_on=TaskTimeout)
    assert view.submit(tasks.hang_until, str(tmp_path), 2).result(timeout=20) == 2


def test_a_timeout_is_no_error_of_another_class(eager: ClientView, tmp_path: Path) -> None:
    with pytest.raises(TaskTimeout):
        view = eager.options(retries=1, timeout_seconds=0.4, retry_on=ValueError)
        view.submit(tasks.hang_until, str(tmp_path), 2).result(timeout=20)


def test_a_crash_is_counted_apart_and_not_retried_unless_asked(eager: ClientView, tmp_path: Path) -> None:
    with pytest.raises(TaskCrashed):
        eager.options(retries=5).submit(tasks.crash_until, str(tmp_path), 2).result(timeout=20)
    assert tasks.attempts_in(tmp_path) == 1


def test_a_crash_is_retried_if_asked(eager: ClientView, tmp_path: Path) -> None:
    assert eager.options(crash_retries=2).submit(tasks.crash_until, str(tmp_path), 3).result(timeout=20) == 3


def test_errors_do_not_use_up_the_retries_after_crashes(eager: ClientView, tmp_path: Path) -> None:
    view = eager.options(retries=2, crash_retries=1)
    endings = ["raise", "crash", "raise"]
    assert view.submit(tasks.fail_in_turn, str(tmp_path), endings).result(timeout=20) == 4


def test_what_must_not_run_twice_is_not_retried(eager: ClientView, tmp_path: Path) -> None:
    with pytest.raises(tasks.OddNumber):
        view = eager.options(retries=3, at_most_once=True)
        view.submit(tasks.succeed_at, str(tmp_path), 9).result(timeout=20)
    assert tasks.attempts_in(tmp_path) == 1


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_while_it_waits_for_its_next_attempt_it_is_retrying(client: Client, tmp_path: Path, isolation: Any) -> None:
    # The wait is drawn from 0 to a day: one of less than a second is drawn once in 86,400 times.
    view = client.options(isolation=isolation, retries=3, backoff_seconds=86400, max_backoff_seconds=86400)
    future = view.submit(tasks.succeed_at, str(tmp_path), 2)
    wait_until(lambda: future.state == "retrying")
    assert not future.running() and not future.done()
    [info] = wait_until(lambda: [info for info in client.tasks("retrying") if info.due_at is not None])
    assert info.task_id == future.task_id
    assert info.due_at is not None
    assert 0 <= info.due_at - time.time() <= 86400
    assert (info.retries, info.backoff_seconds, info.max_backoff_seconds) == (3, 86400, 86400)
    assert future.cancel()
    with pytest.raises(TaskCancelled):
        future.result(timeout=20)
    assert client.run(tasks.double, 2) == 4, "nothing is left in its way"


def test_waits_are_drawn_at_random_and_grow(client: Client, tmp_path: Path) -> None:
    """Full jitter: the waits of twenty tasks differ, and none is above the limit."""
    view = client.options(retries=1, backoff_seconds=1000, max_backoff_seconds=500)
    futures = []
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        futures.append(view.submit(tasks.succeed_at, str(tmp_path / str(number)), 9))

    def all_due() -> list[float]:
        due = [info.due_at for info in client.tasks("retrying") if info.due_at is not None]
        return due if len(due) == 20 else []

    now, due = time.time(), wait_until(all_due, 20)
    assert len({round(moment, 3) for moment in due}) > 15
    assert max(due) - now <= 510
    assert max(due) - min(due) > 50, "drawn from all of it, not around one value"
    for future in futures:
        future.cancel()


def test_params_of_a_map_are_retried_by_themselves(eager: ClientView, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    assert eager.options(retries=2).map(retrying, map(str, folders), chunksize=1) == [3] * 4


def test_a_decorated_function_is_retried(client: Client, tmp_path: Path) -> None:
    @task(retries=2, backoff_seconds=0, name="stubborn")
    def stubborn(folder: str) -> int:
        return tasks.succeed_at(folder, 3)

    assert client.run(stubborn, str(tmp_path)) == 3
    (tmp_path / "once").mkdir()
    with pytest.raises(tasks.OddNumber):
        client.options(retries=0).run(stubborn, str(tmp_path / "once"))


def test_sub_tasks_are_retried_too(client: Client, tmp_path: Path) -> None:
    def parent(folder: str) -> int:
        from palpable import current_task

        return current_task().options(retries=2, backoff_seconds=0).run(retrying, folder)

    assert client.run(parent, str(tmp_path)) == 3


def test_what_waits_for_its_next_attempt_keeps_its_options_over_a_crash_of_the_server(tmp_path: Path) -> None:
    def shown(client: Client) -> tuple[Any, ...]:
        [info] = wait_until(lambda: [info for info in client.tasks("retrying") if info.due_at is not None])
        return (
            (info.name, info.tags, info.attempt, info.priority, info.timeout_seconds, info.idempotency_key),
            (info.retries, info.backoff_seconds, info.max_backoff_seconds, info.retry_on, info.crash_retries),
            pytest.approx(info.due_at, abs=0.5),
        )

    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        client.options(
            retries=1,
            backoff_seconds=86400,
            max_backoff_seconds=80000,
            retry_on=ValueError,
            crash_retries=1,
            timeout_seconds=50,
            priority=3,
            idempotency_key="kept",
            name="shown",
            tags=["a", "b"],
        ).run_procedure(RunFunction(tasks.succeed_at, str(tmp_path), 2), 0)
        before = shown(client)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        server.close()
    with Server(num_workers=1, store=tmp_path / "jobs.db") as server, server.client() as client:
        assert shown(client) == before


def test_all_of_it_is_shown(client: Client, tmp_path: Path) -> None:
    future = client.options(
        retries=4,
        backoff_seconds=2,
        max_backoff_seconds=30,
        retry_on=(OSError, tasks.OddNumber),
        crash_retries=1,
        timeout_seconds=50,
        priority=3,
        name="shown",
        tags={"b", "a"},
    ).submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    [info] = client.tasks("running")
    assert (info.task_id, info.name, info.tags) == (future.task_id, "shown", ("a", "b"))
    assert (info.retries, info.backoff_seconds, info.max_backoff_seconds, info.crash_retries) == (4, 2, 30, 1)
    assert info.retry_on == ("builtins.OSError", "support.tasks.OddNumber")
    assert (info.timeout_seconds, info.priority, info.at_most_once, info.attempt) == (50, 3, False, 1)
    (tmp_path / "holding.go").touch()
    assert future.result(timeout=20) == "holding"
