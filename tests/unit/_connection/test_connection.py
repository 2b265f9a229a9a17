"""One connection, many threads: nothing is lost, nothing hangs, whoever ends it and however."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import threading
import time
import weakref
from typing import Any

import pytest

from palpable import Client, ServerUnreachable
from palpable._wire.messages import (
    BeginWait,
    CancelTasks,
    EndWait,
    RequestFailed,
    ResultsReceived,
    SubmitTasks,
    WatchResults,
)
from support.fake_server import Conversation, FakeServer
from support.wait import wait_until


def double(number: int) -> int:
    return number * 2


def _connection_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "palpable-connection"]


def test_a_blocking_call_switches_no_thread(fake_client: Client) -> None:
    for number in range(3):
        assert fake_client.run(double, number) == number * 2
    reader = fake_client._get_connection()._leadership
    assert reader.is_vacant and not reader.has_followers


def test_a_loop_of_submits_leaves_in_few_messages(fake_server: FakeServer, fake_client: Client) -> None:
    futures = [fake_client.submit(double, number) for number in range(2000)]
    assert [future.result(timeout=20) for future in futures] == [number * 2 for number in range(2000)]
    submits = fake_server.received_of(SubmitTasks)
    assert sum(len(submit.tasks) for submit in submits) == 2000
    assert len(submits) < 400


def test_a_submit_that_nobody_waits_for_leaves_all_the_same(fake_server: FakeServer, fake_client: Client) -> None:
    for number in range(3):  # the first is sent at once, the others linger
        fake_client.submit(double, number)
    wait_until(lambda: sum(len(submit.tasks) for submit in fake_server.received_of(SubmitTasks)) == 3)


def test_results_are_acknowledged_though_nothing_else_is_sent(fake_server: FakeServer, fake_client: Client) -> None:
    fake_client.run(double, 1)
    wait_until(lambda: fake_server.received_of(ResultsReceived))
    wait_until(lambda: not fake_server.reports)


def test_futures_are_done_without_anybody_waiting_in_a_call(fake_client: Client) -> None:
    future = fake_client.submit(double, 4)
    wait_until(future.done)
    assert future.result(timeout=0) == 8


def test_callbacks_run_on_the_background_thread_also_while_another_reads(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.hold()
    called_on: list[str] = []
    future = fake_client.submit(double, 4)
    future.add_done_callback(lambda _: called_on.append(threading.current_thread().name))
    other = fake_client.submit(double, 5)
    threading.Timer(0.05, fake_server.release).start()
    assert other.result(timeout=10) == 10
    wait_until(lambda: called_on)
    assert called_on == ["palpable-connection"]


def test_a_callback_may_wait_for_another_task(fake_client: Client) -> None:
    found: list[int] = []
    future = fake_client.submit(double, 4)
    future.add_done_callback(lambda done: found.append(fake_client.run(double, done.result())))
    wait_until(lambda: found == [16])


def test_threads_wait_side_by_side_and_each_gets_its_own(fake_client: Client) -> None:
    def work(number: int) -> bool:
        return all(fake_client.run(double, number + step) == (number + step) * 2 for step in range(30))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_timeout_ends_one_wait_and_no_other(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    futures = [fake_client.submit(double, number) for number in range(4)]
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(futures[0].result, 0.05), *(pool.submit(future.result, 20) for future in futures[1:])]
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 s"):
            waits[0].result()
        assert time.monotonic() - started < 5
        fake_server.release()
        assert [wait.result() for wait in waits[1:]] == [2, 4, 6]
    assert futures[0].result(timeout=10) == 0


# --- ends ---------------------------------------------------------------------------------------------------------


def test_a_server_that_goes_fails_everything_that_is_pending(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    futures = [fake_client.submit(double, number) for number in range(5)]
    blocked = threading.Thread(target=lambda: errors.append(futures[4].exception(20)))
    errors: list[Any] = []
    called: list[Any] = []
    futures[0].add_done_callback(called.append)
    wait_until(lambda: fake_server.received_of(SubmitTasks))
    blocked.start()
    fake_server.close()
    done, pending = concurrent.futures.wait(futures, timeout=10)
    assert not pending
    blocked.join(10)
    for error in [future.exception() for future in done] + errors:
        assert isinstance(error, ServerUnreachable)
        assert "Is the server still running?" in str(error)
    wait_until(lambda: called == [futures[0]])


def test_the_next_call_connects_again(fake_server: FakeServer, fake_client: Client) -> None:
    assert fake_client.run(double, 1) == 2
    fake_server.close()
    fake_server.start()
    time.sleep(0.02)  # longer than a connection is taken to be alive without a look
    assert fake_client.run(double, 2) == 4


def test_garbage_from_the_server_breaks_the_connection(fake_server: FakeServer, fake_client: Client) -> None:
    def answer_garbage(conversation: Conversation, request: Any) -> bool:
        conversation.sock.sendall(b"\x02\x00\x00\x00\xc1\xc1")
        return True

    fake_server.hooks[SubmitTasks] = answer_garbage
    with pytest.raises(ServerUnreachable, match="not understood"):
        fake_client.run(double, 1)


def test_a_refused_submission_fails_its_tasks_and_no_others(fake_server: FakeServer, fake_client: Client) -> None:
    def refuse(conversation: Conversation, request: Any) -> bool:
        del fake_server.hooks[SubmitTasks]
        conversation.send(RequestFailed(request_id=request.request_id, error="PayloadTooLarge", message="too much"))
        return True

    fake_server.hooks[SubmitTasks] = refuse
    from palpable import PayloadTooLarge

    with pytest.raises(PayloadTooLarge, match="too much"):
        fake_client.run(double, 1)
    assert fake_client.run(double, 2) == 4


def test_closing_fails_what_is_pending_and_ends_the_thread(fake_server: FakeServer) -> None:
    fake_server.hold()
    client = Client(fake_server.address, None, b"key")
    future = client.submit(double, 1)
    wait_until(_connection_threads)
    client.close()
    client.close()
    assert isinstance(future.exception(timeout=5), ServerUnreachable)
    assert not _connection_threads()
    with pytest.raises(ServerUnreachable, match="closed"):
        client.run(double, 1)


def test_what_was_submitted_is_sent_before_the_end(fake_server: FakeServer) -> None:
    with Client(fake_server.address, None, b"key") as client:
        for number in range(50):
            client.submit(double, number)
    wait_until(lambda: sum(len(submit.tasks) for submit in fake_server.received_of(SubmitTasks)) == 50)


def test_a_client_that_is_dropped_closes_its_connection_and_ends_its_thread(fake_server: FakeServer) -> None:
    client = Client(fake_server.address, None, b"key")
    assert client.submit(double, 2).result(timeout=10) == 4
    connection = client._get_connection()
    stream, gone = connection.stream, weakref.ref(client)
    del client, connection
    gc.collect()
    assert gone() is None
    wait_until(lambda: stream.fileno() == -1)
    wait_until(lambda: not _connection_threads())


def test_a_future_outlives_its_client(fake_server: FakeServer) -> None:
    fake_server.hold()
    future = Client(fake_server.address, None, b"key").submit(double, 2)
    gc.collect()
    fake_server.release()
    assert future.result(timeout=10) == 4
    wait_until(lambda: not _connection_threads())


def test_an_idle_connection_uses_no_processor_time(fake_client: Client) -> None:
    fake_client.submit(double, 2).result(timeout=10)
    time.sleep(0.05)  # until it has settled
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.02


# --- forks --------------------------------------------------------------------------------------------------------


def _in_child(check: Any) -> int:
    """Run `check` in a forked child; return 0 if it is true, 1 if it is not or raises, 2 after 10 seconds."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)
            os._exit(0 if check() else 1)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_connection_and_leaves_the_parents_alone(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.hold()
    pending = fake_client.submit(double, 21)
    wait_until(lambda: fake_server.received_of(SubmitTasks))
    fake_server.is_holding = False
    assert _in_child(lambda: fake_client.run(double, 5) == 10) == 0
    fake_server.release()
    assert pending.result(timeout=10) == 42


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_future_of_the_parent_fails_in_the_child_at_once(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    pending = fake_client.submit(double, 21)

    def fails() -> bool:
        try:
            pending.result(timeout=5)
        except ServerUnreachable as error:
            return "forked" in str(error)
        return False

    assert _in_child(fails) == 0


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_calls_never_deadlocks_the_child(fake_client: Client) -> None:
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            fake_client.run(double, 1)
            fake_client.submit(double, 1)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        assert [_in_child(lambda: fake_client.map(double, [1, 2]) == [2, 4]) for _ in range(10)] == [0] * 10
    finally:
        is_over.set()
        for caller in callers:
            caller.join(20)


# --- interrupts ---------------------------------------------------------------------------------------------------


@pytest.mark.speed
def test_interrupts_at_any_moment_lose_nothing(fake_client: Client) -> None:
    """Ctrl-C, again and again, into the thread that mostly reads for the others."""
    is_over, wrong = threading.Event(), list[Any]()
    fake_client.run(double, 1)
    connection = fake_client._get_connection()

    def call_beside() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            if fake_client.run(double, number) != number * 2:
                wrong.append(number)
            if fake_client.submit(double, number).result(20) != number * 2:
                wrong.append(number)

    def interrupt() -> None:
        time.sleep(0.05)
        while not is_over.wait(0.001):
            os.kill(os.getpid(), signal.SIGINT)

    threads = [threading.Thread(target=call_beside, daemon=True) for _ in range(2)]
    interrupter = threading.Thread(target=interrupt, daemon=True)
    for thread in threads:
        thread.start()
    interrupts, number, kept, end = 0, 0, list[Any](), time.monotonic() + 1.5
    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while time.monotonic() < end:
            try:
                if interrupter.ident is None:
                    interrupter.start()
                while time.monotonic() < end:
                    number += 1
                    kept.append((number, fake_client.submit(double, number)))
                    if fake_client.map(double, range(5)) != [0, 2, 4, 6, 8]:
                        wrong.append("map")
            except KeyboardInterrupt:
                interrupts += 1
    except KeyboardInterrupt:
        pass  # in the line above, or between the two
    finally:
        while True:
            try:
                is_over.set()
                interrupter.join(10)
                break
            except KeyboardInterrupt:
                pass
        signal.signal(signal.SIGINT, old_handler)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert interrupts
    assert not wrong
    assert all(future.result(20) == number * 2 for number, future in kept)
    assert fake_client._get_connection() is connection
    wait_until(lambda: not connection._takers)


def test_a_call_that_is_interrupted_ends_its_tasks(fake_server: FakeServer, fake_client: Client) -> None:
    fake_client.run(double, 1)
    fake_server.hold()
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fake_client.map(double, range(3))
    finally:
        signal.signal(signal.SIGINT, old_handler)
    (cancel,) = wait_until(lambda: fake_server.received_of(CancelTasks))
    assert len(cancel.task_ids) == 3


def test_a_signal_handler_may_use_the_client_that_it_interrupts(fake_server: FakeServer, fake_client: Client) -> None:
    fake_client.run(double, 1)
    fake_server.hold()
    found: list[Any] = []

    def handler(*_: object) -> None:
        found.append(fake_client.get_status()["num_workers"])
        fake_server.release()
        found.append(fake_client.run(double, 3))

    old_handler = signal.signal(signal.SIGUSR1, handler)
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    try:
        assert fake_client.run(double, 7) == 14
    finally:
        signal.signal(signal.SIGUSR1, old_handler)
    assert found == [2, 6]


# --- inside a task ------------------------------------------------------------------------------------------------


@pytest.fixture
def inside_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_TASK_ID", "parent")
    monkeypatch.setenv("PALPABLE_TASK_TOKEN", "token")


@pytest.mark.usefixtures("inside_task")
def test_inside_a_task_every_wait_is_told_before_it_begins(fake_server: FakeServer, fake_client: Client) -> None:
    assert fake_client.run(double, 2) == 4
    assert fake_client.map(double, [1, 2]) == [2, 4]
    fake_server.hold()
    future = fake_client.submit(double, 3)
    threading.Timer(0.05, fake_server.release).start()
    assert future.result(timeout=10) == 6
    assert fake_server.conversations[0].inside_task == "parent"
    waits = fake_server.received_of(BeginWait)
    assert [len(wait.task_ids) for wait in waits] == [1, 2, 1]
    assert not fake_server.received_of(EndWait)


@pytest.mark.usefixtures("inside_task")
def test_inside_a_task_a_thread_goes_on_only_with_a_slot(fake_server: FakeServer, fake_client: Client) -> None:
    held: list[tuple[Conversation, Any]] = []
    fake_server.hooks[BeginWait] = lambda conversation, request: bool(held.append((conversation, request))) or True
    fake_server.hold()
    future = fake_client.submit(double, 3)
    waiter = concurrent.futures.ThreadPoolExecutor(1).submit(future.result, 10)
    wait_until(lambda: held)
    fake_server.release()
    wait_until(future.done)
    time.sleep(0.05)
    assert not waiter.done()
    fake_server.hooks.clear()
    fake_server._begin_wait(*held[0])
    assert waiter.result(timeout=10) == 6


@pytest.mark.usefixtures("inside_task")
def test_inside_a_task_a_wait_that_times_out_is_told_and_the_thread_goes_on(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 3)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.05)
    (end,) = wait_until(lambda: fake_server.received_of(EndWait))
    assert [wait.wait_id for wait in fake_server.received_of(BeginWait)] == [end.wait_id]


@pytest.mark.usefixtures("inside_task")
def test_inside_a_task_waits_of_concurrent_futures_are_told_too(fake_server: FakeServer, fake_client: Client) -> None:
    futures = [fake_client.submit(double, number) for number in range(3)]
    fake_server.hold()
    futures += [fake_client.submit(double, number) for number in range(3)]
    threading.Timer(0.1, fake_server.release).start()
    assert not concurrent.futures.wait(futures, timeout=10).not_done
    assert [wait.needs for wait in fake_server.received_of(BeginWait)] == ["all"]
    fake_server.hold()
    futures = [fake_client.submit(double, number) for number in range(3)]
    threading.Timer(0.1, fake_server.release).start()
    assert len(list(concurrent.futures.as_completed(futures, timeout=10))) == 3
    assert fake_server.received_of(BeginWait)[-1].needs == "any"


@pytest.mark.usefixtures("inside_task")
def test_inside_a_task_a_refused_wait_is_raised(fake_server: FakeServer, fake_client: Client) -> None:
    from palpable import WaitCycle

    def refuse(conversation: Conversation, request: Any) -> bool:
        conversation.send(RequestFailed(request_id=request.wait_id, error="WaitCycle", message="round and round"))
        return True

    fake_server.hold()
    fake_server.hooks[BeginWait] = refuse
    with pytest.raises(WaitCycle, match="round and round"):
        fake_client.run(double, 1)


@pytest.mark.usefixtures("inside_task")
def test_inside_a_task_a_client_of_another_server_is_one_like_all_and_connects_again(
    fake_server: FakeServer, fake_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server.task_token = "another"
    assert fake_client.run(double, 2) == 4
    assert fake_client.map(double, [1, 2]) == [2, 4]
    fake_server.hold()
    future = fake_client.submit(double, 3)
    waiter = concurrent.futures.ThreadPoolExecutor(1).submit(future.result, 10)
    fake_client.get_status()  # answered after the task was accepted: else it is submitted again, and not asked for
    fake_server.drop_connections()
    wait_until(lambda: fake_server.received_of(WatchResults))
    fake_server.release()
    assert waiter.result() == 6
    monkeypatch.setenv("PALPABLE_TASK_ID", "the next")
    assert fake_client.run(double, 4) == 8
    assert [conversation.inside_task for conversation in fake_server.conversations] == [""]
    assert not fake_server.received_of(BeginWait)


@pytest.mark.usefixtures("inside_task")
def test_a_connection_of_no_task_does_not_go_on_over_a_socket_of_one(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.task_token = "another"
    assert fake_client.run(double, 2) == 4
    fake_server.task_token = "token"
    fake_server.drop_connections()
    wait_until(lambda: fake_client._get_connection().is_inside_task)
    assert fake_client.run(double, 3) == 6
    assert [len(wait.task_ids) for wait in fake_server.received_of(BeginWait)] == [1]


def test_a_client_kept_from_one_task_to_the_next_speaks_for_the_next(
    fake_server: FakeServer, fake_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALPABLE_TASK_TOKEN", "token")
    for task in ("first", "second"):
        monkeypatch.setenv("PALPABLE_TASK_ID", task)
        assert fake_client.run(double, 2) == 4
        assert fake_client.run(double, 3) == 6
    assert [conversation.inside_task for conversation in fake_server.conversations] == ["first", "second"]
