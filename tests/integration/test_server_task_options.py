"""Options of a server: for tasks whose call, function and client left them open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from palpable import Client, RunFunction, Server, TaskFailed
from palpable.units.task_options import OptionArguments
from support import tasks


@pytest.fixture
def careful() -> Iterator[Client]:
    """A client of a server that retries, and tags, whatever nobody says otherwise of."""
    options = {"retries": 3, "backoff_seconds": 0.5, "tags": ("house",), "priority": 4}
    with Server(num_workers=1, task_options=options) as server, server.client() as client:  # type: ignore[arg-type]
        yield client


def _facts(client: Client, view: object) -> tuple[int, float, tuple[str, ...], int]:
    task_id = view.run_procedure(RunFunction(tasks.double, 1), -1).task_id  # type: ignore[attr-defined]
    (info,) = [info for info in client.tasks() if info.task_id == task_id]
    return info.retries, info.backoff_seconds, info.tags, info.priority


def test_what_nobody_set_is_as_the_server_says(careful: Client) -> None:
    assert _facts(careful, careful) == (3, 0.5, ("house",), 4)


def test_what_was_set_nearer_wins_also_when_it_is_the_default(careful: Client) -> None:
    assert _facts(careful, careful.options(retries=0, priority=0, tags=())) == (0, 0.5, (), 0)
    assert _facts(careful, careful.options(retries=1)) == (1, 0.5, ("house",), 4)


def test_none_leaves_it_to_the_server(careful: Client) -> None:
    assert _facts(careful, careful.options(retries=1).options(retries=None)) == (3, 0.5, ("house",), 4)


def test_every_option_of_a_server_is_kept_with_a_task_in_a_store(tmp_path: Path) -> None:
    options = {
        "isolation": "worker",
        "timeout_seconds": 60,
        "priority": 2,
        "retries": 2,
        "backoff_seconds": 0.25,
        "max_backoff_seconds": 3,
        "retry_on": (ValueError, TaskFailed),
        "crash_retries": 1,
        "at_most_once": True,
        "delay_seconds": 0.01,
        "name": "theirs",
        "tags": {"house"},
        "ends_with_client": True,
    }
    assert options.keys() == set(OptionArguments.__annotations__) - {"idempotency_key", "at"}, "all but two of them"
    store = tmp_path / "jobs.db"
    with Server(num_workers=1, store=store, task_options=options) as server, server.client() as client:  # type: ignore[arg-type]
        assert client.submit(tasks.double, 1).result(timeout=20) == 2
        before = client.tasks()
    with Server(num_workers=1, store=store) as server, server.client() as client:
        after = client.tasks()
    assert len(before) == 1 and before[0].tags == ("house",) and before[0].name == "theirs"
    # Read back from the store it is the difference of two times of day.
    assert after[0].elapsed_seconds == pytest.approx(before[0].elapsed_seconds, abs=1e-4)
    assert [replace(info, elapsed_seconds=None) for info in after] == [replace(before[0], elapsed_seconds=None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "retries must be"),
        ({"retrys": 1}, "is it 'retries'"),
        ({"idempotency_key": "x"}, "can't be an option of a server"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Server(task_options=options)  # type: ignore[arg-type]
