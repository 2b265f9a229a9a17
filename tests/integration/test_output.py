"""What a task writes to stdout and stderr, from wherever, is kept with that task and can be followed live."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from palpable import Client, Server, current_task
from palpable.units.task_exceptions import TaskCrashed, UnknownTask
from support import tasks
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


@pytest.fixture(params=["task", "worker"])
def each_isolation(request: pytest.FixtureRequest, client: Client) -> Client:
    """A client of each isolation in turn."""
    return client.options(isolation=request.param)


def test_what_python_c_and_subprocesses_write_is_kept_in_order(client: Client, each_isolation: Client) -> None:
    future = each_isolation.submit(tasks.speak_from_everywhere)
    future.result(timeout=20)
    assert client.logs(future.task_id).splitlines() == [
        "from print",
        "from stderr",
        "from puts",
        "from printf 42",
        "from a subprocess",
        "from its stderr",
        "from write",
    ]


def test_what_is_left_in_the_buffers_of_python_and_c_is_kept_too(client: Client, each_isolation: Client) -> None:
    future = each_isolation.submit(tasks.speak_from_c_and_return)
    future.result(timeout=20)
    assert client.logs(future.task_id) == "left in the buffer of C\n"


def test_a_task_that_prints_nothing_has_an_empty_log(client: Client) -> None:
    future = client.submit(tasks.double, 2)
    future.result(timeout=20)
    assert client.logs(future.task_id) == ""


def test_every_task_has_its_own_output(client: Client, each_isolation: Client) -> None:
    futures = [each_isolation.submit(tasks.print_line, f"line {number}") for number in range(20)]
    for number, future in enumerate(futures):
        assert future.result(timeout=20) == f"line {number}"
        assert client.logs(future.task_id) == f"line {number}\n"


def test_output_is_followed_live_while_the_task_runs(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    pieces: Iterator[str] = client.logs(future.task_id, follow=True)
    seen = ""
    while "before\n" not in seen:
        seen += next(pieces)
    assert not future.done()
    (tmp_path / "holding.go").touch()
    seen += "".join(pieces)
    assert seen == "before\nafter\n"
    assert future.result(timeout=20) == "done"


def test_several_can_follow_the_same_task(server: Server, client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    seen: list[str] = []

    def follow() -> None:
        with server.client() as other:
            seen.append("".join(other.logs(future.task_id, follow=True)))

    followers = [threading.Thread(target=follow) for _ in range(3)]
    for follower in followers:
        follower.start()
    (tmp_path / "holding.go").touch()
    for follower in followers:
        follower.join(timeout=20)
    assert seen == ["before\nafter\n"] * 3


def test_who_follows_a_task_gets_the_end_of_it_when_the_server_stops(tmp_path: Path) -> None:
    with Server(num_workers=6) as server, ExitStack() as clients, ThreadPoolExecutor(6) as threads:
        followers = []
        for number in range(6):  # each is looked at in its own turn, every 50 ms
            (tmp_path / str(number)).mkdir()
            client = clients.enter_context(server.client())
            future = client.submit(tasks.print_and_wait, str(tmp_path / str(number)))
            pieces = client.logs(future.task_id, follow=True)
            assert next(pieces) == "before\n"
            followers.append(threads.submit("".join, pieces))
        server.stop()
        assert [follower.result(timeout=20) for follower in followers] == [""] * 6


def test_one_may_stop_following_at_any_time(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    pieces = client.logs(future.task_id, follow=True)
    assert "before" in next(pieces)
    pieces.close()
    (tmp_path / "holding.go").touch()
    assert future.result(timeout=20) == "done"
    assert client.logs(future.task_id) == "before\nafter\n"


def test_following_a_task_that_has_ended_gives_what_it_printed(client: Client) -> None:
    future = client.submit(tasks.print_line, "gone by")
    future.result(timeout=20)
    assert "".join(client.logs(future.task_id, follow=True)) == "gone by\n"


def test_the_output_so_far_of_a_running_task_can_be_read(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    assert client.logs(future.task_id) == "before\n"
    (tmp_path / "holding.go").touch()
    future.result(timeout=20)


def test_all_of_the_output_so_far_is_read_however_much(client: Client, each_isolation: Client, tmp_path: Path) -> None:
    def print_much(folder: str) -> None:
        tasks.print_bytes(1_000_000)
        print("!", end="", flush=True)
        tasks.hold(folder)

    future = each_isolation.submit(print_much, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    log = client.logs(future.task_id)
    (tmp_path / "holding.go").touch()
    assert (len(log), log[-1]) == (1_000_001, "!")
    assert log == "".join(f"{number:<99}\n" for number in range(10_000)) + "!"
    future.result(timeout=20)


def test_the_output_so_far_of_a_task_that_prints_without_end_can_be_read(client: Client, tmp_path: Path) -> None:
    def print_until(path: str) -> None:
        tasks.print_bytes(1_000_000)
        tasks.announce(path, "begun")
        while not Path(path, "enough").exists():
            tasks.print_bytes(10_000)

    future = client.submit(print_until, str(tmp_path))
    wait_until((tmp_path / "begun").exists)
    assert len(client.logs(future.task_id)) > 900_000  # what is in the buffer of the task aside
    (tmp_path / "enough").touch()
    future.result(timeout=20)


def test_the_log_of_an_unknown_task_is_an_error(client: Client) -> None:
    with pytest.raises(UnknownTask, match="no-such-task"):
        client.logs("no-such-task")


def test_the_last_words_of_a_crashed_task_are_kept(client: Client) -> None:
    future = client.submit(tasks.exit_at_once, 3)
    with pytest.raises(TaskCrashed) as caught:
        future.result(timeout=20)
    assert "last words" in caught.value.output_tail
    assert client.logs(future.task_id) == "last words\n"


def test_the_output_of_a_cancelled_task_is_kept(client: Client, tmp_path: Path) -> None:
    future = client.submit(tasks.print_and_wait, str(tmp_path))
    wait_until((tmp_path / "holding").exists)
    assert future.cancel()
    assert client.logs(future.task_id) == "before\n"


def test_output_that_is_no_utf8_does_no_harm(client: Client) -> None:
    def write(_: object = None) -> None:
        sys.stdout.buffer.write(b"caf\xe9 \xff\xfe\n")

    future = client.submit(write)
    future.result(timeout=20)
    assert client.logs(future.task_id).startswith("caf")


@pytest.mark.own_server
def test_messages_to_the_messenger_land_in_the_log_and_in_the_log_files(
    server: Server, client: Client, tmp_path: Path
) -> None:
    def speak(_: object = None) -> None:
        messenger = current_task()
        messenger.info("it goes well")
        messenger.warning("it gets warm")
        messenger.print("plain", 1, 2)

    future = client.submit(speak)
    future.result(timeout=20)
    log = client.logs(future.task_id)
    assert "it goes well" in log and "it gets warm" in log and "plain 1 2" in log

    def written() -> str:
        return "".join(path.read_text() for path in (tmp_path / "logs").rglob("*") if path.is_file())

    wait_until(lambda: all(words in written() for words in ("it goes well", "it gets warm", "plain 1 2")))
    assert "plain 1 2\n" in written() and "plain 1 2\n\n" not in written()


@pytest.mark.parametrize("size_bytes", [20_000_000, pytest.param(500_000_000, marks=pytest.mark.slow)])
def test_a_flood_of_output_is_cut_in_the_middle_and_hurts_nobody(client: Client, size_bytes: int) -> None:
    future = client.submit(tasks.print_bytes, size_bytes)
    while not future.done():
        assert client.run(tasks.double, 21) == 42
    lines = future.result(timeout=1)
    log = client.logs(future.task_id)
    kept = log.splitlines()
    assert len(log) < 10_000_000
    assert kept[0].strip() == "0"
    assert kept[-1].strip() == str(lines - 1)


def test_a_flood_of_output_can_be_followed(client: Client) -> None:
    future = client.submit(tasks.print_bytes, 5_000_000)
    pieces = list(client.logs(future.task_id, follow=True))
    assert "".join(pieces).splitlines()[-1].strip() == str(future.result(timeout=20) - 1)


def test_many_tasks_that_print_leave_no_spool_files_behind(client: Client, tmp_path: Path) -> None:
    client.map(tasks.print_line, [f"line {number}" for number in range(100)])

    def spools() -> int:
        return len([path for path in tmp_path.rglob("*") if "spool" in str(path) and path.is_file()])

    wait_until(lambda: spools() < 30)
