"""The calls of a client, against a fake server."""

from __future__ import annotations

import itertools
import math
import operator
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from palpable import (
    AsyncClient,
    AuthenticationFailed,
    Client,
    MapFunction,
    NotPicklable,
    PayloadTooLarge,
    Procedure,
    RunFunction,
    ServerError,
    ServerUnreachable,
    TaskResponse,
    UnknownTask,
)
from palpable._connection import bulk, dialing, progress_bar
from palpable._connection.forking import open_connections
from palpable._wire.messages import CancelTasks, ResultsReceived, StatusReport, SubmitTasks
from support.fake_server import FakeServer
from support.wait import wait_until


class OwnError(Exception):
    """An exception of a user's own."""


def double(number: int) -> int:
    return number * 2


def refuse(number: int) -> int:
    raise OwnError(f"not {number}")


def refuse_three(number: int) -> int:
    return refuse(number) if number == 3 else number


class Fail(Procedure):
    def run(self, messenger: Any) -> None:
        raise OwnError("as told")


@pytest.fixture
def worker_server(tmp_path: Path) -> Iterator[FakeServer]:
    """A server whose tasks share processes by default."""
    (tmp_path / "w").mkdir()
    with FakeServer(tmp_path / "w", isolation="worker") as server:
        yield server


@pytest.fixture
def worker_client(worker_server: FakeServer) -> Iterator[Client]:
    with Client(worker_server.address, None, worker_server.authkey) as client:
        yield client


def _tasks(server: FakeServer) -> list[Any]:
    return [task for submit in server.received_of(SubmitTasks) for task in submit.tasks]


# --- run, submit --------------------------------------------------------------------------------------------------


def test_run_returns_what_the_function_returns(fake_client: Client) -> None:
    assert fake_client.run(double, 4) == 8
    assert fake_client.run(lambda pair: pair[0] + pair[1], (1, 2)) == 3


def test_run_raises_the_tasks_own_exception_with_the_remote_traceback(fake_client: Client) -> None:
    with pytest.raises(OwnError, match="not 4") as caught:
        fake_client.run(refuse, 4)
    assert "raise OwnError" in str(caught.value.__cause__)


def test_submit_takes_any_arguments_by_any_name(fake_client: Client) -> None:
    def capture(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    future = fake_client.submit(capture, 1, self=2, function=3, fn=4)
    assert future.result(timeout=10) == ((1,), {"self": 2, "function": 3, "fn": 4})


def test_what_can_not_be_pickled_is_refused_before_anything_is_sent(
    fake_server: FakeServer, fake_client: Client
) -> None:
    for call in (fake_client.run, fake_client.submit, lambda f, p: fake_client.map(f, [p])):
        with pytest.raises(NotPicklable):
            call(double, threading.Lock())
    assert not fake_server.received_of(SubmitTasks)


def test_what_is_larger_than_the_server_accepts_is_refused_with_the_sizes(tmp_path: Path) -> None:
    with FakeServer(tmp_path, max_payload_bytes=10_000) as server, Client(server.address, None, b"key") as client:
        with pytest.raises(PayloadTooLarge, match="the server accepts 10000") as caught:
            client.run(len, b"x" * 20_000)
        assert caught.value.limit_bytes == 10_000
        assert client.run(len, b"x" * 100) == 100


# --- map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list, tuple, set, iter, lambda params: (param for param in params), dict.fromkeys])
def test_map_takes_any_iterable(fake_client: Client, make: Callable[[Any], Any]) -> None:
    assert sorted(fake_client.map(double, make(range(5)))) == [0, 2, 4, 6, 8]


def test_a_map_over_nothing_does_not_ask_the_server(tmp_path: Path) -> None:
    with Client(str(tmp_path / "nobody"), None, b"key") as client:
        assert client.map(double, []) == []
        assert client.map(double, iter(())) == []


def test_a_map_runs_each_param_in_a_task_of_its_own(fake_server: FakeServer, fake_client: Client) -> None:
    assert fake_client.map(double, range(1000)) == [number * 2 for number in range(1000)]
    assert [task.form for task in _tasks(fake_server)] == ["call"] * 1000
    assert fake_client.map(double, range(10), chunksize=4) == [number * 2 for number in range(10)]
    assert [task.form for task in _tasks(fake_server)[1000:]] == ["chunk"] * 3


def test_where_processes_are_shared_a_map_travels_in_chunks(worker_server: FakeServer, worker_client: Client) -> None:
    assert worker_client.map(double, range(1000)) == [number * 2 for number in range(1000)]
    assert [task.form for task in _tasks(worker_server)] == ["chunk"] * 8
    assert worker_client.map(double, [7]) == [14]
    assert worker_client.options(isolation="task").map(double, [1, 2]) == [2, 4]
    assert [task.form for task in _tasks(worker_server)[9:]] == ["call"] * 2


@pytest.mark.parametrize("chunksize", ["auto", 1, 3, 100])
def test_the_first_failure_of_a_map_is_raised_and_the_rest_cancelled(
    fake_server: FakeServer, fake_client: Client, chunksize: Any
) -> None:
    with pytest.raises(OwnError, match="not 3"):
        fake_client.map(refuse_three, range(20), chunksize=chunksize)


def test_params_that_raise_when_read_submit_nothing(fake_server: FakeServer, fake_client: Client) -> None:
    def params() -> Iterator[int]:
        yield 1
        raise OwnError("in the middle")

    with pytest.raises(OwnError, match="in the middle"):
        fake_client.map(double, params())
    assert not fake_server.received


def test_a_progress_bar_is_silent_where_there_is_no_terminal(
    fake_client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fake_client.map(double, range(10), progress=True) == [number * 2 for number in range(10)]
    assert list(fake_client.imap(double, range(3), progress=True)) == [0, 2, 4]
    assert capfd.readouterr() == ("", "")


class Recorder:
    """Takes the place of a bar."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def draw(self, done: int) -> None:
        self.seen.append(done)

    def close(self) -> None:
        pass


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(progress_bar, "_drawing", lambda name, total: recorder)
    monkeypatch.setattr(progress_bar, "REDRAW_SECONDS", 0.0)
    return recorder


@pytest.mark.parametrize(
    ("isolation", "chunksize"),
    [("task", "auto"), ("worker", "auto"), ("worker", 7)],
    ids=["single", "chunks", "7"],
)
def test_a_progress_bar_counts_params_whatever_travels_together(
    fake_client: Client, bar: Recorder, isolation: Any, chunksize: Any
) -> None:
    fake_client.options(isolation=isolation).map(double, range(250), chunksize=chunksize, progress=True)
    assert bar.seen == sorted(bar.seen)
    assert bar.seen[-1] == 250


def test_a_progress_bar_of_imap_counts_what_was_yielded(fake_client: Client, bar: Recorder) -> None:
    results = fake_client.imap(double, range(30), progress=True)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    results.close()
    assert bar.seen == [1, 2, 3]


# --- imap ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_imap_is_in_order_and_imap_unordered_has_all(fake_client: Client, isolation: Any) -> None:
    view = fake_client.options(isolation=isolation)
    assert list(view.imap(double, range(500))) == [number * 2 for number in range(500)]
    assert sorted(view.imap_unordered(double, range(500))) == [number * 2 for number in range(500)]
    assert list(view.imap(double, [])) == list(view.imap_unordered(double, [])) == []


@pytest.mark.parametrize(
    ("isolation", "chunksize", "most_ahead"), [("task", "auto", 50), ("worker", 1, 50), ("worker", 7, 350)]
)
def test_imap_reads_no_further_ahead_than_its_window_of_tasks(
    fake_client: Client, isolation: Any, chunksize: Any, most_ahead: int
) -> None:
    read = itertools.count()
    params = (next(read) for _ in itertools.repeat(None))
    results = fake_client.options(isolation=isolation).imap(double, params, window=50, chunksize=chunksize)
    assert [next(results) for _ in range(200)] == [number * 2 for number in range(200)]
    assert next(read) <= 200 + most_ahead
    results.close()


@pytest.mark.parametrize(("window", "tasks"), [(1, 1), (2, 2), (10, 8), (1000, 8)])
def test_imap_begins_with_one_param_a_task_and_no_more_tasks_than_the_workers_need(
    fake_server: FakeServer, fake_client: Client, window: int, tasks: int
) -> None:
    read: list[int] = []
    fake_server.hold()
    results = fake_client.options(isolation="worker").imap(double, noted(read), window=window)
    taker = threading.Thread(target=lambda: next(results))
    taker.start()
    wait_until(lambda: sum(len(sent.tasks) for sent in fake_server.received_of(SubmitTasks)) == tasks)
    assert len(read) == tasks
    fake_server.release()
    taker.join()
    results.close()


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_with_a_window_of_one_a_chunk_is_read_when_all_of_the_one_before_is_yielded(
    fake_client: Client, call: str
) -> None:
    yielded = 0
    first_of_chunk: dict[int, int] = {}

    def params() -> Iterator[int]:
        for number in itertools.count():
            first_of_chunk.setdefault(yielded, number)
            yield number

    results = getattr(fake_client.options(isolation="worker"), call)(double, params(), window=1)
    for yielded in range(2000):  # noqa: B007 - read by `params`
        next(results)
    results.close()
    assert all(yielded == first for yielded, first in first_of_chunk.items())
    assert len(first_of_chunk) < 1000  # chunks have grown


def noted(read: list[int]) -> Iterator[int]:
    """Yield 0, 1, 2 and so on for ever, and put each into `read` before."""
    for number in itertools.count():
        read.append(number)
        yield number


def test_imap_is_lazy_until_it_is_asked(fake_server: FakeServer, fake_client: Client) -> None:
    results = fake_client.imap(double, itertools.count())
    assert not fake_server.received
    results.close()


def test_closing_an_imap_cancels_what_is_on_its_way(fake_server: FakeServer, fake_client: Client) -> None:
    results = fake_client.imap(double, itertools.count())
    assert next(results) == 0
    wait_until(lambda: len(fake_server.executed) == 8)
    fake_server.hold()
    for _ in range(5):  # so many that the window was filled anew, and not all
        next(results)
    held = {task.task_id for _, tasks in wait_until(lambda: fake_server._held) for task in tasks}
    results.close()
    wait_until(lambda: held <= {task for cancel in fake_server.received_of(CancelTasks) for task in cancel.task_ids})


def test_an_imap_that_is_dropped_is_closed(fake_server: FakeServer, fake_client: Client) -> None:
    results = fake_client.imap(double, itertools.count())
    next(results)
    wait_until(lambda: len(fake_server.executed) == 8)
    fake_server.hold()
    for _ in range(5):
        next(results)
    wait_until(lambda: fake_server._held)
    del results
    wait_until(lambda: fake_server.received_of(CancelTasks))


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_params_that_raise_in_the_middle_of_an_imap_end_it_after_what_came_before(
    fake_client: Client, call: str
) -> None:
    def params() -> Iterator[int]:
        yield from range(3)
        raise OwnError("in the middle")

    found = []
    with pytest.raises(OwnError, match="in the middle"):
        found.extend(getattr(fake_client, call)(double, params()))
    assert sorted(found) == [0, 2, 4]


def test_results_of_a_slow_source_come_early(fake_client: Client) -> None:
    asked = threading.Event()

    def params() -> Iterator[int]:
        yield 1
        assert asked.wait(10)
        yield 2

    results = fake_client.options(isolation="worker").imap(double, params(), chunksize=1)
    threading.Timer(0.3, asked.set).start()
    assert list(results) == [2, 4]


def test_a_failure_in_an_imap_is_raised_in_its_place(fake_client: Client) -> None:
    results = fake_client.imap(refuse_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OwnError, match="not 3"):
        next(results)
    assert list(results) == []


# --- procedures and results ---------------------------------------------------------------------------------------


def test_a_procedure_gives_a_result_with_the_facts_of_its_process(fake_client: Client) -> None:
    result = fake_client.run_procedure(RunFunction(double, 4))
    assert (result.is_successful, result.data, result.exit_status, result.attempt) == (True, 8, 0, 1)
    failed = fake_client.run_procedure(Fail(), waiting_seconds=-1)
    assert failed.is_successful is False and isinstance(failed.data, OwnError)


def test_a_procedure_that_takes_longer_gives_a_result_without_an_end(
    fake_server: FakeServer, fake_client: Client
) -> None:
    fake_server.hold()
    for seconds in (0, 0.02):
        result = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=seconds)
        assert (result.is_successful, result.data) == (None, None)
        standing = fake_client.query_result(result.task_id)
        assert standing is not None and standing.is_successful is None
    fake_server.release()
    done = wait_until(lambda: fake_client.query_result(result.task_id))
    assert done.data == 8


def test_a_queried_result_is_gone_unless_it_is_kept(fake_server: FakeServer, fake_client: Client) -> None:
    task_id = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=0).task_id
    assert fake_client.result(task_id) == 8
    kept = fake_client.query_result(task_id, keep=True)
    assert kept is not None and kept.data == 8
    taken = fake_client.query_result(task_id)
    assert taken is not None and taken.data == 8
    assert fake_client.query_result(task_id) is None
    assert fake_client.query_result("never heard of") is None
    with pytest.raises(UnknownTask, match=task_id):
        fake_client.result(task_id)


def test_a_result_that_was_taken_is_told_at_once(fake_server: FakeServer, fake_client: Client) -> None:
    task_id = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=0).task_id
    assert fake_client.query_result(task_id) is not None
    wait_until(lambda: fake_server.received_of(ResultsReceived))
    wait_until(lambda: not fake_server.reports)


def test_waiting_for_a_result_has_an_end(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    task_id = fake_client.run_procedure(MapFunction(double, [1]), waiting_seconds=0).task_id
    with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
        fake_client.result(task_id, timeout_seconds=0.02)


def test_the_ajax_calls_answer_in_words(fake_server: FakeServer, fake_client: Client) -> None:
    assert fake_client.ajax_run_procedure(RunFunction(double, 4)) == TaskResponse.SUCCESS
    failed = fake_client.ajax_run_procedure(Fail())
    assert failed == TaskResponse.ERROR and failed["data"] == "as told"
    fake_server.hold()
    pending = fake_client.ajax_run_procedure(RunFunction(double, 4), waiting_seconds=0)
    assert pending == fake_client.ajax_query_result(pending["task_id"]) == TaskResponse.TBD
    assert fake_client.ajax_query_result("never heard of") == TaskResponse.NONE


def test_the_ajax_calls_never_raise(tmp_path: Path) -> None:
    client = Client(str(tmp_path / "nobody"), "AF_UNIX", b"key")
    unpicklable = RunFunction(double, threading.Lock())
    for response in (
        client.ajax_run_procedure(RunFunction(double, 1)),
        client.ajax_query_result("x"),
        client.ajax_query_result(5),  # type: ignore[arg-type]
        client.ajax_run_procedure(unpicklable),
        client.ajax_run_procedure(RunFunction(double, 1), waiting_seconds=math.nan),
    ):
        assert response == TaskResponse.ERROR
        assert response["data"]


# --- questions ----------------------------------------------------------------------------------------------------


def test_questions_about_tasks(fake_server: FakeServer, fake_client: Client) -> None:
    task_id = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=0).task_id
    fake_client.result(task_id)
    assert fake_client.logs(task_id) == f"output of {task_id}\n"
    assert list(fake_client.logs(task_id, follow=True)) == [f"output of {task_id}\n"]
    assert [task.task_id for task in fake_client.tasks()] == [task_id]
    assert fake_client.tasks(state="running") == fake_client.tasks(state=["ready", "running"]) == []
    assert not fake_client.cancel(task_id)
    assert fake_client.get_status()["num_workers"] == 2
    fake_client.quit()
    with pytest.raises(UnknownTask):
        fake_client.logs("never heard of")


def test_a_queued_task_can_be_cancelled(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.hold()
    task_id = fake_client.run_procedure(RunFunction(double, 4), waiting_seconds=0).task_id
    assert fake_client.cancel(task_id)
    result = fake_client.query_result(task_id)
    assert result is not None and result.is_successful is False


# --- making one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"authkey": "text"}, TypeError, "authkey must be bytes"),
        ({"authkey": b""}, ValueError, "authkey must not be empty"),
        ({"family": "AF_X"}, ValueError, "family"),
        ({"address": ("a", -1)}, ValueError, "port"),
        ({"tls": 5}, TypeError, "tls must be"),
        ({"tls": True, "address": "/x"}, ValueError, "tls is for TCP"),
        ({"tls": "/no/such/file"}, FileNotFoundError, "no/such/file"),
        ({"isolation": "thread"}, ValueError, "isolation must be"),
        (
            {"timeout_seconds": -1},
            ValueError,
            r"timeout_seconds must be a number from 0\.001 to 1000000000.*, not -1",
        ),
        ({"timeout_seconds": "1"}, TypeError, "timeout_seconds"),
        ({"priority": 1.5}, TypeError, "priority must be a whole number"),
        ({"ends_with_client": 1}, TypeError, "ends_with_client"),
    ],
)
def test_a_parameter_out_of_range_is_refused_at_once(
    parameters: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Client(**{"address": ("127.0.0.1", 1), "authkey": b"k", **parameters})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda client: client.map(5, [1]), TypeError, "must be a function"),
        (lambda client: client.run("x", 1), TypeError, "must be a function"),
        (lambda client: client.map(double, 5), TypeError, "not iterable"),
        (lambda client: client.map(double, [1], chunksize=0), ValueError, "chunksize must be"),
        (lambda client: client.map(double, [1], chunksize="all"), TypeError, "chunksize must be"),
        (lambda client: client.imap(double, [1], window=0), ValueError, "window must be"),
        (lambda client: client.imap(double, 5), TypeError, "not iterable"),
        (lambda client: client.imap_unordered(5, [1]), TypeError, "must be a function"),
        (lambda client: client.run_procedure(Fail(), "1"), TypeError, "waiting_seconds must be a number"),
        (lambda client: client.result("x", -1), ValueError, "timeout_seconds must be a number from 0"),
        (lambda client: client.result(5), TypeError, "task_id must be a string"),
        (lambda client: client.tasks(limit=-1), ValueError, "limit must be"),
        (lambda client: client.tasks(state=[5]), TypeError, "each of state must be a string, not 5"),
        (lambda client: client.tasks(tags=5), TypeError, "tags must be a string, a list of strings, or None, not 5"),
        (lambda client: client.purge([None]), TypeError, "each of state must be a string, not None"),
        (lambda client: client.options(priority="high"), TypeError, "priority must be"),
    ],
)
def test_an_argument_out_of_range_is_refused_before_the_server_is_asked(
    tmp_path: Path, call: Callable[[Client], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(Client(str(tmp_path / "nobody"), None, b"key"))


def test_options_travel_with_the_tasks_the_nearer_wins(fake_server: FakeServer) -> None:
    with Client(fake_server.address, None, b"key", isolation="worker", priority=3) as client:
        view = client.options(timeout_seconds=5).options(priority=-1, ends_with_client=True)
        client.submit(double, 1).result(10)
        view.submit(double, 1).result(10)
    plain, special = (submit.options for submit in fake_server.received_of(SubmitTasks))
    assert (plain.isolation, plain.priority, plain.timeout_seconds) == ("worker", 3, None)
    assert not plain.ends_with_client
    assert (special.isolation, special.priority, special.timeout_seconds) == ("worker", -1, 5.0)
    assert special.ends_with_client


def test_a_client_may_be_subclassed_with_an_init_of_no_arguments(fake_server: FakeServer) -> None:
    class Mine(Client):
        def __init__(self) -> None:
            super().__init__(fake_server.address, "AF_UNIX", b"key")

    with Mine() as client:
        assert client.run(double, 2) == 4


def test_a_client_is_pickled_without_its_connection(fake_server: FakeServer, fake_client: Client) -> None:
    assert fake_client.run(double, 2) == 4
    with pickle.loads(pickle.dumps(fake_client)) as other:
        assert other.run(double, 3) == 6
        assert other._get_connection() is not fake_client._get_connection()


def test_a_client_and_its_view_say_of_which_server_they_are(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    for kind in (Client, AsyncClient):
        client = kind(path, authkey=b"key")
        assert repr(client) == f"<{kind.__name__} of unix://{path}>"
        assert repr(client.options(retries=1)) == f"<{kind.__name__}View of {client!r}>"


class Handler:
    """A signal handler that calls `act` in the middle of Palpable's code: after the call of that number.

    That is where the interpreter runs handlers.
    """

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.left = number
        self._act = act

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("return", "c_return") and "palpable" in frame.f_code.co_filename:
            self.left -= 1
            if not self.left:
                sys.setprofile(None)
                self._act()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("uses", ["the same", "another"])
def test_a_signal_handler_may_use_a_client_at_any_step_of_connecting(fake_server: FakeServer, uses: str) -> None:
    for number in itertools.count(1):
        with (
            Client(fake_server.address, None, b"key") as client,
            Client(fake_server.address, None, b"key") as another,
        ):
            used, found = client if uses == "the same" else another, list[Any]()
            client._connecting = (0, threading.RLock())  # as in a process that was forked
            handler = Handler(number, lambda: found.append(used.get_status()))  # noqa: B023 - called at once
            sys.setprofile(handler)
            try:
                connection = client._get_connection()
            finally:
                sys.setprofile(None)
            assert client._get_connection() is connection is client._connection and connection.is_usable
            assert client._finalizer is not None and client._finalizer.peek()[1] == connection.close_when_idle
            assert len(found) == (handler.left <= 0)
        assert not [one for one in open_connections() if one.is_usable]
        if handler.left > 0:
            break
    assert number > 50


def test_a_client_that_is_closed_while_another_thread_connects_stays_closed(
    fake_server: FakeServer, fake_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove, is_connected, goes_on = dialing.prove, threading.Event(), threading.Event()

    def prove_slowly(*arguments: Any) -> Any:
        proven = prove(*arguments)
        is_connected.set()
        assert goes_on.wait(20)
        return proven

    monkeypatch.setattr(dialing, "prove", prove_slowly)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(fake_client.get_status)
        assert is_connected.wait(20)
        fake_client.close()
        goes_on.set()
        with pytest.raises(ServerUnreachable, match="this client is closed"):
            asking.result(20)
    with pytest.raises(ServerUnreachable, match="this client is closed"):
        fake_client.submit(double, 1)
    assert not [one for one in open_connections() if one.is_usable]


def test_a_client_that_is_closed_before_another_thread_has_entered_its_connection_is_used_by_none(
    fake_client: Client,
) -> None:
    assert fake_client.run(double, 1) == 2
    fake_client._is_closed = True  # as far as `close` has come, or the other thread
    with pytest.raises(ServerUnreachable, match="this client is closed"):
        fake_client.run(double, 1)


def test_the_default_server_is_started_by_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALPABLE_HOME", str(tmp_path))
    for why in ("there is no socket file", "nobody listens there"):
        with pytest.raises(ServerUnreachable, match=rf"{why}.* Start the server with `palpable serve`"):
            Client(authkey=b"key").run(double, 1)
        with socket.socket(socket.AF_UNIX) as sock:
            if why.startswith("there"):
                sock.bind(str(tmp_path / "server.sock"))


def test_a_wrong_key_is_told(fake_server: FakeServer) -> None:
    with pytest.raises(AuthenticationFailed):
        Client(fake_server.address, None, b"another").run(double, 1)


@pytest.mark.parametrize(
    ("make_address", "words"),
    [
        (lambda folder: str(folder / "none"), "there is no socket file"),
        (lambda folder: _dead_socket(folder), "nobody listens there. Start the server"),
        (lambda folder: ("127.0.0.1", _free_port()), "nobody listens there. Start the server"),
        (lambda folder: ("no-such-host.invalid", 80), "is not known|Is a server running there"),
    ],
)
def test_a_server_that_is_not_there_is_told_with_what_to_do(
    tmp_path: Path, make_address: Callable[[Path], Any], words: str
) -> None:
    with pytest.raises(ServerUnreachable, match=words) as caught:
        Client(make_address(tmp_path), None, b"key").run(double, 1)
    assert caught.value.address
    assert isinstance(caught.value, ConnectionError)


def _dead_socket(folder: Path) -> str:
    path = str(folder / "dead")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    return path


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_what_is_no_palpable_server_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "other")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        other = threading.Thread(target=answer)
        other.start()
        with pytest.raises(ServerError, match="no Palpable server"):
            Client(path, None, b"key").run(double, 1)
        other.join()


def test_an_answer_that_says_nothing_is_no_trouble(fake_server: FakeServer, fake_client: Client) -> None:
    def answer_another(conversation: Any, request: Any) -> None:
        conversation.send(StatusReport(request_id=999_999, status={}))

    fake_server.hooks[SubmitTasks] = answer_another
    assert fake_client.map(operator.neg, [1, 2]) == [-1, -2]


# --- idempotency keys -------------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_task(fake_server: FakeServer, fake_client: Client) -> None:
    fake_server.is_holding = True
    keyed = fake_client.options(idempotency_key="order 17")
    first, second, other = keyed.submit(double, 1), keyed.submit(double, 1), fake_client.submit(double, 2)
    assert first.task_id == second.task_id != other.task_id
    assert len(first.task_id) == len(other.task_id)
    wait_until(lambda: len(submitted_ids(fake_server)) == 2)
    fake_server.release()
    assert (first.result(), second.result(), other.result()) == (2, 2, 4)
    assert sorted(submitted_ids(fake_server)) == sorted([first.task_id, other.task_id])


def test_threads_that_use_the_same_key_at_once_all_get_the_result(fake_server: FakeServer, fake_client: Client) -> None:
    calls = [lambda keyed: keyed.run(double, 3), lambda keyed: keyed.submit(double, 3).result()] * 4
    for number in range(20):
        keyed = fake_client.options(idempotency_key=f"order {number}")
        with ThreadPoolExecutor(len(calls)) as pool:
            assert list(pool.map(lambda call: call(keyed), calls)) == [6] * len(calls)  # noqa: B023 - called at once


@pytest.mark.parametrize("key", [None, "order 17"])
def test_an_interrupt_ends_a_task_unless_others_may_wait_for_it(
    fake_server: FakeServer, fake_client: Client, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    fake_server.is_holding = True
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bulk, "wait_for_tasks", interrupt)
        fake_client.options(idempotency_key=key).run(double, 1)
    fake_client.get_status()  # an answer to this says that what was sent before has arrived
    assert len(submitted_ids(fake_server)) == 1
    assert any(isinstance(request, CancelTasks) for request in fake_server.received) is (key is None)
    if key is not None:
        future = fake_client.options(idempotency_key=key).submit(double, 1)
        fake_server.release()
        assert future.result() == 2


def test_a_procedure_has_the_id_of_its_key(fake_server: FakeServer, fake_client: Client) -> None:
    procedure = RunFunction(double, 2)
    keyed = fake_client.options(idempotency_key="a procedure")
    result = keyed.run_procedure(procedure, waiting_seconds=-1)
    assert result.data == 4
    assert result.task_id == keyed.submit(double, 2).task_id


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.map(double, [1]),
        lambda client: client.imap(double, [1]),
        lambda client: client.imap_unordered(double, [1]),
        lambda client: client.map(double, []),
    ],
    ids=["map", "imap", "imap_unordered", "an empty map"],
)
def test_a_key_is_refused_by_calls_that_make_many_tasks(fake_client: Client, call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="idempotency_key='k' names one task, and this call makes many"):
        call(fake_client.options(idempotency_key="k"))


def submitted_ids(server: FakeServer) -> list[str]:
    return [task.task_id for request in server.received if isinstance(request, SubmitTasks) for task in request.tasks]
