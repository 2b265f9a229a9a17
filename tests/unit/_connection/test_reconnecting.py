"""A connection that breaks is made whole again, and nobody who waits notices more than a delay."""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from palpable import Client, ServerUnreachable, TaskLost
from palpable._connection.reconnecting import MAX_DELAY_SECONDS, delays
from palpable._wire.messages import (
    CancelTasks,
    GetStatus,
    LogChunk,
    QueryResults,
    QuitServer,
    ReadLogs,
    SubmitTasks,
    TasksAccepted,
    WatchResults,
)
from palpable.procedures.run_function import RunFunction
from support.fake_server import Conversation, FakeServer
from support.wait import wait_until


def double(number: int) -> int:
    return number * 2


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("palpable-")]


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path, is_durable=True) as server:
        yield server


@pytest.fixture
def durable_client(durable_server: FakeServer) -> Iterator[Client]:
    with Client(durable_server.address, None, b"key") as client:
        yield client


class Once:
    """A hook that acts on the first request of its kind, and leaves the others to the server."""

    def __init__(self, act: Any) -> None:
        self.calls = 0
        self._act = act

    def __call__(self, conversation: Conversation, request: Any) -> bool:
        self.calls += 1
        if self.calls > 1:
            return False
        self._act(conversation, request)
        return True


def _cut(conversation: Conversation, request: Any) -> None:
    conversation.server.drop_connections()


def _see_it_accepted(client: Client) -> None:
    """Wait until the client knows that all it has submitted was accepted.

    That the server has received it is less: what was not accepted when the connection breaks is submitted again.
    """
    client.get_status()  # answered in its turn


# --- a connection that breaks alone -------------------------------------------------------------------------------


def test_results_that_are_pending_arrive_over_the_next_connection(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    futures = [fake_client.submit(double, number) for number in range(5)]
    called: list[Any] = []
    futures[0].add_done_callback(called.append)
    _see_it_accepted(fake_client)
    fake_server.drop_connections()
    wait_until(lambda: fake_server.received_of(WatchResults))
    fake_server.release()
    assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8]
    assert len(fake_server.executed) == 5
    wait_until(lambda: called == [futures[0]])


def test_results_that_came_while_it_was_broken_arrive_too(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    _see_it_accepted(fake_client)

    def release(conversation: Conversation, request: Any) -> bool:
        fake_server.release()
        return False

    fake_server.hooks[WatchResults] = release
    fake_server.drop_connections()
    assert future.result(10) == 8


def test_what_was_not_accepted_is_submitted_again_with_the_same_ids(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.hooks[SubmitTasks] = Once(_cut)
    assert fake_client.map(double, range(3)) == [0, 2, 4]
    first, second = fake_server.received_of(SubmitTasks)
    assert [task.task_id for task in first.tasks] == [task.task_id for task in second.tasks]
    assert second.functions == first.functions


def test_what_was_accepted_but_not_answered_runs_once(fake_server: FakeServer, fake_client: Client) -> None:
    def accept_and_cut(conversation: Conversation, request: Any) -> None:
        conversation.send = lambda *messages: None  # type: ignore[method-assign]
        fake_server._submit(conversation, request)
        fake_server.drop_connections()

    fake_server.hooks[SubmitTasks] = Once(accept_and_cut)
    assert fake_client.run(double, 4) == 8
    assert len(fake_server.executed) == 1


def test_what_nobody_waits_for_is_submitted_again_too(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hooks[SubmitTasks] = Once(_cut)
    task_id = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=0).task_id
    wait_until(lambda: fake_server.executed == [task_id])


def test_a_large_function_travels_again_with_what_needs_it(fake_server: FakeServer, fake_client: Client) -> None:
    data = os.urandom(100_000)

    def size(number: int) -> int:
        return number + len(data)

    def accept_one_and_cut(conversation: Conversation, request: Any) -> bool:
        if len(fake_server.received_of(SubmitTasks)) == 1:
            return False
        del fake_server.hooks[SubmitTasks]
        fake_server.drop_connections()
        return True

    fake_server.hooks[SubmitTasks] = accept_one_and_cut
    assert fake_client.run(size, 1) == 100_001
    assert fake_client.run(size, 2) == 100_002
    assert [bool(submit.functions) for submit in fake_server.received_of(SubmitTasks)] == [True, False, True]


def test_questions_are_asked_again(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hooks[GetStatus] = Once(_cut)
    assert fake_client.get_status()["num_workers"] == 2
    assert len(fake_server.received_of(GetStatus)) == 2


def test_to_stop_the_next_server_was_not_meant(fake_server: FakeServer, fake_client: Client) -> None:
    fake_client.run(double, 1)
    fake_server.hooks[QuitServer] = Once(_cut)
    with pytest.raises(ServerUnreachable):
        fake_client.quit()
    assert fake_client.run(double, 1) == 2
    assert len(fake_server.received_of(QuitServer)) == 1


def test_a_result_whose_way_was_cut_is_still_there(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    task_id = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=0).task_id
    _see_it_accepted(fake_client)
    fake_server.release()

    def answer_into_the_void(conversation: Conversation, request: Any) -> None:
        conversation.next_sequence([task_id])
        fake_server.drop_connections()

    fake_server.hooks[QueryResults] = Once(answer_into_the_void)
    result = fake_client.query_result(task_id)
    assert result is not None and result.data == 8
    wait_until(lambda: not fake_server.reports)


def test_followed_output_goes_on_where_it_was(fake_server: FakeServer, fake_client: Client) -> None:
    def print_and_cut(conversation: Conversation, request: Any) -> bool:
        number = len(fake_server.received_of(ReadLogs))
        text = "one two drei vier fünf sechs".encode()
        cuts = {1: [5, 17], 2: [3, 20], 3: [4]}[number]  # 20: in the middle of the ü
        start = 0
        for end in cuts:
            conversation.send(LogChunk(request_id=request.request_id, data=text[start:end]))
            start = end
        if number < 3:
            wait_until(lambda: len("".join(pieces).encode()) >= cuts[-1] - 1)
            fake_server.drop_connections()
        else:
            conversation.send(LogChunk(request_id=request.request_id, data=text[start:], is_last=True))
        return True

    pieces: list[str] = []
    fake_server.hooks[ReadLogs] = print_and_cut
    for piece in fake_client.logs("any", follow=True):
        pieces.append(piece)
    assert "".join(pieces) == "one two drei vier fünf sechs"


def test_a_task_that_the_server_no_longer_knows_is_lost(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    _see_it_accepted(fake_client)
    fake_server.reports.clear()
    fake_server.drop_connections()
    with pytest.raises(TaskLost, match="does not know the task") as caught:
        future.result(10)
    assert caught.value.task_id == future.task_id
    assert fake_client.get_status()["num_workers"] == 2


def test_a_task_with_a_key_is_not_taken_for_lost_before_it_is_submitted(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.hooks[SubmitTasks] = Once(_cut)
    keyed = fake_client.options(idempotency_key="one")
    futures = [keyed.submit(double, 4) for _ in range(3)]
    assert [future.result(10) for future in futures] == [8, 8, 8]
    fake_server.hold()
    future = fake_client.options(idempotency_key="two").submit(double, 5)
    _see_it_accepted(fake_client)
    fake_server.drop_connections()
    wait_until(lambda: fake_server.received_of(WatchResults))
    fake_server.release()
    assert future.result(10) == 10


def test_another_server_at_the_same_address_ends_it(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    _see_it_accepted(fake_client)
    fake_server.info["server_id"] = "another"
    fake_server.drop_connections()
    with pytest.raises(ServerUnreachable, match="another server"):
        future.result(10)
    fake_server.is_holding = False
    assert fake_client.run(double, 4) == 8


def test_a_server_without_a_store_is_tried_once(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    _see_it_accepted(fake_client)
    started = time.monotonic()
    fake_server.close()
    with pytest.raises(ServerUnreachable, match="the server closed the connection; connecting again failed: no server"):
        future.result(10)
    assert time.monotonic() - started < 5
    wait_until(lambda: not _threads())


def test_who_wants_no_reconnecting_gets_none(fake_server: FakeServer) -> None:
    with Client(fake_server.address, None, b"key", reconnect_seconds=0) as client:
        fake_server.hold()
        future = client.submit(double, 4)
        _see_it_accepted(client)
        fake_server.drop_connections()
        with pytest.raises(ServerUnreachable, match="the server closed the connection"):
            future.result(10)
        assert len(fake_server.received_of(SubmitTasks)) == 1


@pytest.mark.parametrize("seconds", [-1, "60", float("nan"), True])
def test_the_time_is_checked(seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="reconnect_seconds must be a number from 0"):
        Client(("127.0.0.1", 1), None, b"key", reconnect_seconds=seconds)


# --- a server that comes back -------------------------------------------------------------------------------------


def _held(server: FakeServer, client: Client) -> concurrent.futures.Future[int]:
    server.hold()
    future = client.submit(double, 4)
    _see_it_accepted(client)
    return future


def test_everybody_waits_for_a_durable_server_that_starts_again(
    durable_server: FakeServer, durable_client: Client
) -> None:
    future = _held(durable_server, durable_client)
    called: list[Any] = []
    future.add_done_callback(called.append)
    durable_server.close()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(future.result, 20), pool.submit(durable_client.get_status)]
        waits += [pool.submit(durable_client.map, double, [1, 2]), pool.submit(durable_client.run, double, 5)]
        wait_until(lambda: len(durable_client._get_connection().pending.requests) == 1)
        assert not any(wait.done() for wait in waits)
        durable_server.start()
        durable_server.release()
        found = [wait.result(20) for wait in waits]
    assert (found[0], found[2:]) == (8, [[2, 4], 10])
    wait_until(lambda: called == [future])
    assert sorted(durable_server.executed) == sorted(set(durable_server.executed))


def test_a_call_that_begins_while_a_durable_server_is_away_waits_for_it(
    durable_server: FakeServer, durable_client: Client
) -> None:
    assert durable_client.run(double, 1) == 2
    durable_server.close()
    threading.Timer(0.3, durable_server.start).start()
    time.sleep(0.02)  # longer than a connection is taken to be alive without a look
    assert durable_client.run(double, 2) == 4


def test_a_generator_goes_on_after_a_break_that_another_call_mended(
    fake_server: FakeServer, fake_client: Client
) -> None:
    results = fake_client.imap(double, range(100), window=2)
    assert [next(results), next(results)] == [0, 2]
    connection = fake_client._get_connection()
    wait_until(lambda: not connection._outbox.expects_something)
    fake_server.drop_connections()
    time.sleep(0.02)  # longer than a connection is taken to be alive without a look
    assert fake_client.run(double, 5) == 10
    assert list(results) == [double(number) for number in range(2, 100)]
    assert fake_client._get_connection() is connection


def test_the_time_is_kept(durable_server: FakeServer) -> None:
    with Client(durable_server.address, None, b"key", reconnect_seconds=0.3) as client:
        future = _held(durable_server, client)
        started = time.monotonic()
        durable_server.close()
        with pytest.raises(ServerUnreachable, match="connecting again failed: no server"):
            future.result(10)
        assert time.monotonic() - started < 5
        wait_until(lambda: not _threads())


def test_a_connection_that_breaks_every_time_is_not_made_for_ever(durable_server: FakeServer) -> None:
    def cut(conversation: Conversation, request: Any) -> bool:
        durable_server.drop_connections()
        return True

    with Client(durable_server.address, None, b"key", reconnect_seconds=0.5) as client:
        durable_server.hooks[SubmitTasks] = cut
        with pytest.raises(ServerUnreachable, match="broke"):
            client.run(double, 4)
        assert len(durable_server.received_of(SubmitTasks)) < 50
        del durable_server.hooks[SubmitTasks]
        assert client.run(double, 4) == 8


def test_who_waits_for_a_long_task_survives_any_number_of_breaks(durable_server: FakeServer) -> None:
    with Client(durable_server.address, None, b"key", reconnect_seconds=0.5) as client:
        durable_server.hold()
        future = client.submit(double, 4)
        connection = client._get_connection()
        wait_until(lambda: connection.link.incoming.has_progressed and not connection.link.outbox.unanswered)
        for breaks in range(1, 21):  # for longer than half a second, were each one but another try
            durable_server.drop_connections()
            wait_until(lambda breaks=breaks: len(durable_server.received_of(WatchResults)) == breaks)
            wait_until(lambda: connection.link.incoming.has_progressed)
        durable_server.release()
        assert future.result(20) == 8


def test_a_wrong_key_ends_the_tries(durable_server: FakeServer, durable_client: Client) -> None:
    future = _held(durable_server, durable_client)
    durable_server.authkey = b"another"
    durable_server.drop_connections()
    with pytest.raises(ServerUnreachable, match="authkey"):
        future.result(10)


def test_timeouts_count_while_the_server_is_away(durable_server: FakeServer, durable_client: Client) -> None:
    future = _held(durable_server, durable_client)
    durable_server.close()
    with pytest.raises(TimeoutError):
        future.result(0.05)
    with pytest.raises(TimeoutError):
        durable_client.result("any", timeout_seconds=0.05)
    result = durable_client.run_procedure(RunFunction(double, 4), waiting_seconds=0.05)
    assert result.is_successful is None
    durable_server.start()
    durable_server.release()
    assert future.result(10) == 8
    wait_until(lambda: durable_client.query_result(result.task_id, keep=True).is_successful)  # type: ignore[union-attr]


def test_a_wait_for_a_result_is_not_lengthened_by_a_break(durable_server: FakeServer, durable_client: Client) -> None:
    _held(durable_server, durable_client)
    durable_server.hooks[QueryResults] = Once(_cut)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        durable_client.result(durable_server.received_of(SubmitTasks)[0].tasks[0].task_id, timeout_seconds=1.0)
    assert 0.9 < time.monotonic() - started < 5
    assert durable_server.received_of(QueryResults)[1].wait_seconds < 1.0


# --- in the middle of it ------------------------------------------------------------------------------------------


def test_closing_while_the_server_is_away_fails_what_is_pending_and_leaves_no_thread(
    durable_server: FakeServer,
) -> None:
    client = Client(durable_server.address, None, b"key")
    future = _held(durable_server, client)
    durable_server.close()
    wait_until(lambda: "palpable-reconnecting" in _threads())
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 1.5
    assert isinstance(future.exception(5), ServerUnreachable)
    assert not _threads()


def test_closing_waits_for_a_thread_that_is_about_to_start(
    durable_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_starting = threading.Event()

    class SlowThread(threading.Thread):
        def start(self) -> None:
            if self.name == "palpable-reconnecting":
                is_starting.set()
                time.sleep(0.2)
            super().start()

        def run(self) -> None:
            if self.name == "palpable-reconnecting":
                time.sleep(0.2)
            super().run()

    monkeypatch.setattr(threading, "Thread", SlowThread)
    client = Client(durable_server.address, None, b"key")
    future = _held(durable_server, client)
    durable_server.close()
    assert is_starting.wait(5)
    client.close()
    assert isinstance(future.exception(5), ServerUnreachable)
    assert not _threads()


def test_what_was_not_sent_when_a_client_closes_is_given_a_moment(durable_server: FakeServer) -> None:
    with Client(durable_server.address, None, b"key") as client:
        future = _held(durable_server, client)
        durable_server.is_holding = False
        durable_server.close()
        wait_until(lambda: client._get_connection().is_away)
        client.submit(double, 5)
        threading.Timer(0.1, durable_server.start).start()
    wait_until(lambda: len(durable_server.received_of(SubmitTasks)) == 2)
    assert isinstance(future.exception(5), ServerUnreachable)


def test_a_ctrl_c_ends_the_wait_for_a_server_that_is_away(durable_server: FakeServer, durable_client: Client) -> None:
    future = _held(durable_server, durable_client)
    durable_server.close()
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            durable_client.map(double, range(3))
    finally:
        signal.signal(signal.SIGINT, old_handler)
    durable_server.start()
    durable_server.release()
    assert future.result(10) == 8
    wait_until(lambda: durable_server.received_of(CancelTasks))
    assert len(durable_server.executed) == 1  # nobody wants the others any more


def test_a_signal_handler_may_use_the_client_while_the_server_is_away(
    durable_server: FakeServer, durable_client: Client
) -> None:
    future = _held(durable_server, durable_client)
    found: list[Any] = []

    def handler(*_: object) -> None:
        durable_server.close()
        threading.Timer(0.1, durable_server.start).start()
        found.append(durable_client.get_status()["num_workers"])
        durable_server.release()
        found.append(durable_client.run(double, 3))

    old_handler = signal.signal(signal.SIGUSR1, handler)
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    try:
        assert future.result(20) == 8
    finally:
        signal.signal(signal.SIGUSR1, old_handler)
    assert found == [2, 6]


def test_a_callback_that_waits_does_not_keep_the_connection_broken(
    durable_server: FakeServer, durable_client: Client
) -> None:
    found: list[int] = []

    def go_on(done: concurrent.futures.Future[int]) -> None:
        durable_server.close()
        threading.Timer(0.1, durable_server.start).start()
        found.append(durable_client.run(double, done.result()))

    future = durable_client.submit(double, 4)
    future.add_done_callback(go_on)
    wait_until(lambda: found == [16])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_the_server_is_away_leaves_it_to_the_parent(
    durable_server: FakeServer, durable_client: Client
) -> None:
    future = _held(durable_server, durable_client)
    durable_server.close()
    wait_until(lambda: "palpable-reconnecting" in _threads())
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)
            future.result(5)
        except BaseException as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    durable_server.start()
    durable_server.release()
    assert future.result(10) == 8


def test_a_client_that_is_dropped_meanwhile_is_served_to_the_end(durable_server: FakeServer) -> None:
    future = _held(durable_server, Client(durable_server.address, None, b"key"))
    durable_server.close()
    wait_until(lambda: "palpable-reconnecting" in _threads())
    durable_server.start()
    durable_server.release()
    assert future.result(10) == 8
    wait_until(lambda: not _threads())


# A Ctrl-C while the main thread connects may leave its new socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_that_break_all_the_time_lose_nothing_and_run_nothing_twice(tmp_path: Path) -> None:
    """Several threads, each with calls of every kind, and a Ctrl-C now and then in the main thread."""
    rng = random.Random(7)
    is_over = threading.Event()
    counts: dict[int, int] = {}
    wrong: list[Any] = []

    with FakeServer(tmp_path, is_durable=True) as server, Client(server.address, None, b"key") as client:
        client.get_status()  # the first connection is tried once

        def call(first: int) -> None:
            number = first
            while not is_over.is_set():
                number += 10
                if client.run(double, number) != number * 2:
                    wrong.append(number)
                if client.map(double, [number, 1]) != [number * 2, 2]:
                    wrong.append(("map", number))
                if client.submit(double, number).result(20) != number * 2:
                    wrong.append(("submit", number))
                if list(client.imap(double, range(3))) != [0, 2, 4]:
                    wrong.append("imap")
            counts[first] = number

        def cut() -> None:
            while not is_over.wait(rng.uniform(0.0, 0.03)):
                server.drop_connections()

        threads = [threading.Thread(target=call, args=(number,)) for number in range(3)] + [
            threading.Thread(target=cut)
        ]
        for thread in threads:
            thread.start()
        kept: list[tuple[int, concurrent.futures.Future[int]]] = []
        interrupts, number, end = 0, 0, time.monotonic() + 2.0
        old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        old_alarm = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            while time.monotonic() < end:
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.03))
                    while time.monotonic() < end:
                        number += 1
                        kept.append((number, client.submit(double, number)))
                        if client.map(double, range(5)) != [0, 2, 4, 6, 8]:
                            wrong.append("map")
                except KeyboardInterrupt:
                    interrupts += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old_alarm)
            signal.signal(signal.SIGINT, old_handler)
            is_over.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert [future.result(20) for _, future in kept] == [number * 2 for number, _ in kept]
        assert interrupts and not wrong and len(counts) == 3
        assert len(server.executed) == len(set(server.executed))


def test_the_waits_grow_and_are_spread() -> None:
    waits = list(islice(delays(random.Random(1)), 200))
    assert all(0 <= wait <= MAX_DELAY_SECONDS for wait in waits)
    assert waits[0] <= 0.05 and max(waits[:3]) <= 0.2
    assert max(waits[20:]) > 1.8 and min(waits[20:]) < 0.2


def test_the_answer_to_a_submission_is_counted_once(fake_server: FakeServer, fake_client: Client) -> None:
    def accept_twice(conversation: Conversation, request: Any) -> None:
        conversation.send(TasksAccepted(request_id=request.request_id))
        fake_server._submit(conversation, request)

    fake_server.hooks[SubmitTasks] = Once(accept_twice)
    assert fake_client.run(double, 4) == 8
