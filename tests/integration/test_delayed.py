"""A task that is not to start before a moment, and the order of those that may."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, TaskCancelled
from support import tasks
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_it_runs_no_earlier_than_it_may(client: Client, isolation: Any) -> None:
    submitted_at = time.time()
    future = client.options(isolation=isolation, delay_seconds=0.4).submit(tasks.moment_of_running)
    assert future.result(timeout=20) - submitted_at >= 0.4


def test_it_runs_no_earlier_than_its_moment(client: Client) -> None:
    moment = time.time() + 0.5
    moments = [datetime.fromtimestamp(moment, UTC), datetime.fromtimestamp(moment), moment]
    futures = [client.options(at=at).submit(tasks.moment_of_running) for at in moments]
    # The clock of the calendar may be set back a little while they wait.
    assert min(future.result(timeout=20) for future in futures) >= moment - 0.01


def test_what_may_start_starts(client: Client) -> None:
    yesterday = datetime.now() - timedelta(days=1)
    for view in (client.options(delay_seconds=0), client.options(at=yesterday), client.options(at=0)):
        assert view.run(tasks.double, 2) == 4


def test_of_two_conditions_the_later_counts(client: Client) -> None:
    future = client.options(delay_seconds=0, at=time.time() + 3600).submit(tasks.double, 2)
    assert wait_until(lambda: future.state) == "scheduled"
    other = client.options(delay_seconds=3600, at=0).submit(tasks.double, 2)
    assert wait_until(lambda: other.state) == "scheduled"


def test_until_then_it_is_scheduled(client: Client) -> None:
    future = client.options(delay_seconds=3600, name="later").submit(tasks.double, 2)
    assert wait_until(lambda: future.state == "scheduled")
    assert not future.done() and not future.running()
    assert future.progress is None and future.logs() == ""
    [info] = client.tasks("scheduled")
    assert (info.task_id, info.name, info.attempt, info.started_at) == (future.task_id, "later", 0, None)
    assert info.due_at == pytest.approx(time.time() + 3600, abs=60)
    assert client.run(tasks.double, 2) == 4, "others do not wait for it"


def test_it_can_be_cancelled_before(client: Client) -> None:
    future = client.options(delay_seconds=3600).submit(tasks.double, 2)
    assert future.cancel()
    with pytest.raises(TaskCancelled):
        future.result(timeout=20)
    assert client.tasks("scheduled") == []


def test_a_timeout_is_that_of_the_attempt_and_not_of_the_wait(client: Client) -> None:
    assert client.options(delay_seconds=0.6, timeout_seconds=0.5).run(tasks.double, 2) == 4


def test_a_parent_that_waits_for_a_delayed_sub_task_leaves_its_slot(lone_client: Client) -> None:
    def parent(_: object) -> int:
        from palpable import current_task

        return current_task().options(delay_seconds=0.3).run(tasks.double, 2)

    assert lone_client.run(parent, None) == 4


def test_those_that_become_due_run_in_the_order_of_their_moments(lone_client: Client, tmp_path: Path) -> None:
    path, start = str(tmp_path / "order"), time.time()
    futures = [
        lone_client.options(at=start + delay).submit(tasks.append_line, path, name)
        for name, delay in [("third", 0.9), ("first", 0.3), ("second", 0.6)]
    ]
    for future in futures:
        future.result(timeout=20)
    assert (tmp_path / "order").read_text().split() == ["first", "second", "third"]


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_the_higher_priority_runs_first_and_equal_ones_in_their_order(
    lone_client: Client, tmp_path: Path, isolation: Any
) -> None:
    path = str(tmp_path / "order")
    view = lone_client.options(isolation=isolation)
    blocker = view.submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    priorities = [("low", -1), ("normal", 0), ("high", 5), ("high, later", 5), ("normal, later", 0)]
    futures = [
        view.options(priority=priority).submit(tasks.append_line, path, name.replace(", ", "-"))
        for name, priority in priorities
    ]
    wait_until(lambda: len(lone_client.tasks("ready")) == 5)
    (tmp_path / "holding.go").touch()
    for future in [blocker, *futures]:
        future.result(timeout=20)
    order = (tmp_path / "order").read_text().split()
    assert order == ["high", "high-later", "normal", "normal-later", "low"]
