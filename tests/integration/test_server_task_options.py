"""Options of a server: for tasks whose call, function and client left them open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from palpable import Client, RunFunction, Server
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
