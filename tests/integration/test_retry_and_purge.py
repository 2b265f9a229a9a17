"""What a client can ask of tasks that have ended, and of a server that is to end: retry, purge, drain, quit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from palpable import AsyncClient, Client, Server
from palpable.units.task_exceptions import PalpableError, ServerDraining, ServerUnreachable, TaskKilledByQuitSignal
from support import tasks
from support.wait import wait_until


def test_a_task_that_failed_is_submitted_again_as_a_new_one(client: Client, tmp_path: Path) -> None:
    failed = client.submit(tasks.half, 3)
    assert isinstance(failed.exception(timeout=20), tasks.OddNumber)
    succeeded = client.submit(tasks.half, 4)
    succeeded.result(timeout=20)
    new_ids = client.retry([failed.task_id, succeeded.task_id, "no-such-task"])
    assert new_ids[0] and new_ids[0] != failed.task_id and new_ids[1:] == [None, None]
    with pytest.raises(tasks.OddNumber):
        client.result(new_ids[0], timeout_seconds=20)
    assert client.retry([]) == []


def test_what_was_delayed_and_is_submitted_again_runs_at_once(client: Client) -> None:
    task_id = client.options(delay_seconds=1_000_000).submit(tasks.double, 2).task_id
    assert client.cancel(task_id)
    (new_id,) = client.retry([task_id])
    assert new_id is not None and client.result(new_id, timeout_seconds=20) == 4


def test_a_state_that_there_is_not_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match=r"no state 'done'; there are scheduled, .*succeeded"):
        client.tasks(state=["failed", "done"])


def test_what_has_ended_is_purged_by_state_and_age(client: Client) -> None:
    for number in (2, 3, 5):
        client.submit(tasks.half, number).exception(timeout=20)
    assert client.purge("failed", older_than_seconds=3600) == 0
    assert client.purge("failed") == 2
    assert [task.state for task in client.tasks()] == ["succeeded"]
    assert client.purge() == 1 and client.tasks() == []
    with pytest.raises(ValueError, match="running"):
        client.purge(["failed", "running"])


def test_a_server_that_drains_finishes_what_runs_and_starts_nothing(client: Client, tmp_path: Path) -> None:
    running = client.submit(tasks.hold, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    client.drain()
    assert client.get_status()["is_draining"] is True
    with pytest.raises(ServerDraining):
        client.run(tasks.double, 1)
    (tmp_path / "holding.go").touch()
    assert running.result(timeout=20) == "holding"
    client.drain(False)
    assert client.run(tasks.double, 1) == 2


def test_a_server_that_quits_lets_what_runs_end_in_time(tmp_path: Path) -> None:
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=1) as server, server.client() as client:
        running = client.submit(tasks.hold, str(tmp_path))
        wait_until((tmp_path / "holding").exists)
        client.quit(drain_seconds=30)
        (tmp_path / "holding.go").touch()
        assert running.result(timeout=20) == "holding"


def test_of_two_times_to_quit_the_shorter_counts(tmp_path: Path) -> None:
    with Server(logging_folder=str(tmp_path / "logs"), num_workers=1) as server, server.client() as client:
        running = client.submit(tasks.hold, str(tmp_path))
        wait_until((tmp_path / "holding").exists)
        client.quit(drain_seconds=600)
        client.quit()
        assert isinstance(running.exception(timeout=20), TaskKilledByQuitSignal)


def test_tasks_are_listed_by_tag_and_in_any_number(client: Client) -> None:
    view = client.options(isolation="worker", tags=("many", "small"))
    futures = [view.submit(tasks.double, number) for number in range(4500)]
    assert [future.result(timeout=30) for future in futures][-1] == 8998
    client.options(tags=("few",)).submit(tasks.double, 1).result(timeout=20)
    assert len(client.tasks(limit=10_000)) == 4501
    listed = client.tasks(limit=4200, tags="many")
    assert [task.task_id for task in listed] == [future.task_id for future in reversed(futures)][:4200]
    assert len(client.tasks(tags=["few"])) == 1 and client.tasks(tags=["few", "many"]) == []


def test_an_asyncio_client_does_the_same(server: Server) -> None:
    async def main() -> None:
        async with AsyncClient(server.address, server.family, server.authkey) as client:
            future = await client.options(tags=["odd"]).submit(tasks.half, 3)
            with pytest.raises(tasks.OddNumber):
                await future
            (new_id,) = await client.retry([future.task_id])
            assert new_id is not None
            with pytest.raises(tasks.OddNumber):
                await client.result(new_id, timeout_seconds=20)
            assert len(await client.tasks(tags="odd")) == 2
            assert await client.purge("failed") == 2
            await client.drain()
            with pytest.raises(ServerDraining):
                await client.run(tasks.double, 1)
            await client.drain(False)
            assert await client.run(tasks.double, 1) == 2
            await client.quit(drain_seconds=0)

    asyncio.run(main())
    with pytest.raises(ServerUnreachable), server.client() as client:
        wait_until(lambda: client.get_status() is None)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.retry("an-id"),
        lambda client: client.retry([1]),
        lambda client: client.purge(older_than_seconds=-1),
        lambda client: client.drain(1),
        lambda client: client.quit(drain_seconds=-1),
        lambda client: client.quit(drain_seconds="soon"),
    ],
)
def test_a_wrong_parameter_is_refused_at_once(call: object) -> None:
    with Client(("127.0.0.1", 1), authkey=b"key") as client, pytest.raises((TypeError, ValueError)) as error:
        call(client)  # type: ignore[operator]
    assert not isinstance(error.value, PalpableError)
