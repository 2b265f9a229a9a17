"""A TaskFuture is a Future in every way that its documentation names."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest

from palpable import Client, RemoteTraceback, TaskCancelled, TaskFuture
from palpable._wire.messages import CancelTasks
from support.fake_server import FakeServer
from support.wait import wait_until


class OwnError(Exception):
    """An exception of a user's own."""


class Thing:
    """Something that can be referred to weakly."""


def double(number: int) -> int:
    return number * 2


def refuse(number: int) -> int:
    raise OwnError(str(number))


def make_thing(_: int) -> Thing:
    return Thing()


def test_a_result_and_its_state(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    assert isinstance(future, concurrent.futures.Future)
    assert (future.done(), future.cancelled(), future.running()) == (False, False, False)
    assert future.state == "ready"
    assert "pending" in repr(future)
    fake_server.release()
    assert future.result(timeout=10) == 8
    assert (future.done(), future.cancelled(), future.running(), future.state) == (True, False, False, "succeeded")
    assert future.exception() is None
    assert future.task_id in repr(future) and "succeeded" in repr(future)


COUNT_DICTS = """
import gc
from palpable.units.task_future import TaskFuture
from palpable._wire.messages import TaskReport

def count_dicts():
    gc.collect()
    return sum(type(one) is dict for one in gc.get_objects())

connection = []  # of what the garbage collector looks at, as a connection is
futures = [TaskFuture(str(number), connection) for number in range(200)]
before = count_dicts()
for future in futures:
    assert future.take(TaskReport(future.task_id, "succeeded", "succeeded", b"\\x80\\x05K\\x07."))
    assert future.result() == 7
print(count_dicts() - before)
"""


def test_futures_whose_results_come_later_have_no_dict_each() -> None:
    # In a process of its own: what the first futures of a process have decides for all that follow.
    found = subprocess.run([sys.executable, "-c", COUNT_DICTS], capture_output=True, text=True, timeout=60, check=True)
    assert int(found.stdout) < 20


def test_a_failure_is_raised_again_and_again_with_its_cause(fake_client: Client) -> None:
    future = fake_client.submit(refuse, 4)
    for _ in range(2):
        with pytest.raises(OwnError, match="4"):
            future.result(timeout=10)
    error = future.exception()
    assert isinstance(error, OwnError) and isinstance(error.__cause__, RemoteTraceback)
    assert error is future.exception()
    assert future.state == "failed" and "failed" in repr(future)


def test_a_time_that_is_over_is_a_timeout_error(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(timeout=0.01)
        with pytest.raises(TimeoutError):
            ask(0)


def test_cancelling_ends_the_task_and_is_seen_by_everybody(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    futures = [fake_client.submit(double, number) for number in range(3)]
    called: list[Any] = []
    futures[0].add_done_callback(called.append)
    waiter = threading.Thread(target=lambda: errors.append(_raised(futures[1])))
    errors: list[BaseException] = []
    waiter.start()
    assert futures[0].cancel() and futures[1].cancel()
    waiter.join(10)
    assert [type(error) for error in errors] == [TaskCancelled]
    assert len(fake_server.received_of(CancelTasks)) == 2
    assert futures[0].cancelled() and futures[0].done() and futures[0].state == "cancelled"
    assert futures[0].cancel()
    wait_until(lambda: called == [futures[0]])
    for ask in (futures[0].result, futures[0].exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask()
    assert concurrent.futures.wait(futures, timeout=0.01).done == set(futures[:2])


def _raised(future: TaskFuture[Any]) -> BaseException:
    try:
        future.result(10)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_cancelling_what_has_ended_changes_nothing(fake_client: Client) -> None:
    future = fake_client.submit(double, 4)
    assert future.result(timeout=10) == 8
    assert not future.cancel()
    assert future.result() == 8


def test_cancelling_without_a_server_says_no(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    fake_server.close()
    assert not future.cancel()
    assert not future.running()
    fake_server.start()


@pytest.mark.parametrize("return_when", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_wait_works(fake_client: Client, return_when: str) -> None:
    futures = [fake_client.submit(double, number) for number in range(20)] + [fake_client.submit(refuse, 1)]
    done, pending = concurrent.futures.wait(futures, timeout=10, return_when=return_when)
    assert done
    if return_when == "ALL_COMPLETED":
        assert not pending
    assert concurrent.futures.wait(futures, timeout=10).not_done == set()


def test_wait_sees_every_end_however_often_it_is_asked_while_they_come(fake_client: Client) -> None:
    for _ in range(30):
        futures = [fake_client.submit(double, number) for number in range(50)]
        assert concurrent.futures.wait(futures, timeout=20).not_done == set()


def test_as_completed_yields_each_once_together_with_other_futures(fake_client: Client) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        futures = [fake_client.submit(double, number) for number in range(20)]
        mixed = [*futures, pool.submit(double, 50), futures[0]]
        assert {future.result() for future in concurrent.futures.as_completed(mixed, timeout=10)} == {
            *range(0, 40, 2),
            100,
        }


def test_callbacks_are_called_in_order_and_at_once_when_it_is_done(
    fake_server: FakeServer, fake_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    fake_server.hold()
    future, called = fake_client.submit(double, 4), list[Any]()

    def fail(_: Any) -> None:
        raise OwnError("in a callback")

    future.add_done_callback(lambda _: called.append(1))
    future.add_done_callback(fail)
    future.add_done_callback(lambda _: called.append(2))
    fake_server.release()
    wait_until(lambda: called == [1, 2])
    assert "in a callback" in caplog.text
    future.add_done_callback(lambda _: called.append(3))
    assert called == [1, 2, 3]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_callback_that_ends_its_thread_ends_nothing(
    fake_server: FakeServer, fake_client: Client, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def end(_: Any) -> None:
        raise error

    fake_server.hold()
    future, called = fake_client.submit(double, 4), list[Any]()
    future.add_done_callback(end)
    future.add_done_callback(called.append)
    fake_server.release()
    wait_until(lambda: called == [future])
    assert f"exception calling callback for {future!r}" in caplog.text
    assert concurrent.futures.wait([fake_client.submit(double, 5)], timeout=10).not_done == set()


@pytest.mark.parametrize("ask", ["result", "exception", "cancel"])
@pytest.mark.parametrize("is_waited_for", [False, True], ids=["called back", "waited for"])
def test_a_callback_that_waits_for_what_the_main_thread_does_next_holds_up_no_other_future(
    fake_server: FakeServer, fake_client: Client, ask: str, is_waited_for: bool
) -> None:
    assert threading.current_thread() is threading.main_thread()
    began, goes_on, came = threading.Event(), threading.Event(), list[bool]()

    def wait_for_main(_: Any) -> None:
        began.set()
        came.append(goes_on.wait(5))

    fake_server.hold()
    first = fake_client.submit(double, 1)
    first.add_done_callback(wait_for_main)  # before it ends, so that it is not called at once
    fake_server.release()
    assert began.wait(10)
    fake_server.hold()
    second = fake_client.submit(refuse if ask == "exception" else double, 2)
    second.add_done_callback(came.append)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        if is_waited_for:
            waiting = pool.submit(concurrent.futures.wait, [second], timeout=20)
            wait_until(lambda: second._waiters)
        if ask != "cancel":
            fake_server.release()
        answer: Any = getattr(second, ask)()
        assert concurrent.futures.wait([second], timeout=0).done == {second}
        if is_waited_for:
            assert waiting.result(10).done == {second}
        assert not came
        goes_on.set()
    wait_until(lambda: came == [True, second])
    assert answer is True if ask == "cancel" else isinstance(answer, OwnError) if ask == "exception" else answer == 4


def test_asyncio_can_await_it(fake_server: FakeServer, fake_client: Client) -> None:
    async def main() -> list[Any]:
        futures = [fake_client.submit(double, number) for number in range(20)] + [fake_client.submit(refuse, 5)]
        return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)

    *results, error = asyncio.run(main())
    assert results == [number * 2 for number in range(20)]
    assert isinstance(error, OwnError)


def test_two_threads_that_ask_get_the_same_object(fake_client: Client) -> None:
    for _ in range(20):
        future = fake_client.submit(make_thing, 1)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            things = [ask.result() for ask in [pool.submit(future.result) for _ in range(4)]]
        assert len({id(thing) for thing in things}) == 1


def test_a_future_that_is_dropped_drops_its_result(fake_client: Client) -> None:
    future = fake_client.submit(make_thing, 1)
    gone = weakref.ref(future.result(timeout=10))
    assert gone() is not None
    del future
    gc.collect()
    assert gone() is None


def test_an_error_that_was_raised_leaves_no_cycle(fake_client: Client) -> None:
    future = fake_client.submit(refuse, 1)
    gone = weakref.ref(future)
    gc.disable()
    try:
        try:
            future.result(timeout=10)
        except OwnError:
            pass
        del future
        wait_until(lambda: gone() is None, timeout_seconds=2)
    finally:
        gc.enable()


def test_what_the_library_calls_on_it_works_too(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future: TaskFuture[int] = fake_client.submit(double, 4)
    assert future.set_running_or_notify_cancel()
    assert future.running()
    future.set_result(5)
    assert future.result() == 5
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result(6)


def test_logs_and_progress_can_be_asked_of_it(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    future = fake_client.submit(double, 4)
    assert future.logs() == "".join(future.logs(follow=True)) == f"output of {future.task_id}\n"
    assert future.progress is None
