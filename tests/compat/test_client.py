"""Every documented call of the original's client, task, procedure, response and messenger."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palpable.procedures.map_function import MapFunction
from palpable.procedures.procedure import Procedure
from palpable.procedures.run_function import RunFunction
from palpable.servants.server import Server
from palpable.units.client import Client
from palpable.units.messenger import Messenger
from palpable.units.task import Task
from palpable.units.task_exceptions import TaskFailed
from palpable.units.task_response import TaskResponse
from palpable.units.task_result import TaskResult
from support import tasks
from support.wait import wait_until

pytestmark = pytest.mark.shared_server


@pytest.fixture
def client(lone_server: Server) -> Iterator[Client]:
    """A client of a server with one worker, made as the original's users make it."""
    client = Client(lone_server.address, lone_server.family, lone_server.authkey)
    yield client
    client.close()


# --- client ---------------------------------------------------------------------------------------------------------


def test_map_returns_a_list_in_order(client: Client) -> None:
    assert client.map(tasks.double, [3, 1, 2]) == [6, 2, 4]
    assert client.map(tasks.double, (number for number in range(3))) == [0, 2, 4]
    assert client.map(tasks.double, []) == []


def test_map_raises_the_first_failure_as_its_own_type(client: Client) -> None:
    with pytest.raises(tasks.OddNumber) as caught:
        client.map(tasks.half, [2, 5, 4, 7])
    assert caught.value.number == 5


def test_run_passes_one_positional_argument(client: Client) -> None:
    assert client.run(tasks.double, 4) == 8
    assert client.run(len, [1, 2, 3]) == 3
    assert client.run(lambda param: param, (1, 2)) == (1, 2)


def test_run_raises_the_tasks_own_exception(client: Client) -> None:
    with pytest.raises(tasks.OddNumber):
        client.run(tasks.half, 1)
    with pytest.raises(ZeroDivisionError):
        client.run(lambda number: 1 / number, 0)


def test_run_procedure_waits_at_most_as_long_as_it_is_told(client: Client, tmp_path: Path) -> None:
    start = time.monotonic()
    result = client.run_procedure(RunFunction(tasks.hold, str(tmp_path)), waiting_seconds=0.2)
    assert 0.2 <= time.monotonic() - start < 2
    assert isinstance(result, TaskResult)
    assert result.is_successful is None
    (tmp_path / "holding.go").touch()
    assert wait_until(lambda: _finished(client, result.task_id)).data == "holding"


def _finished(client: Client, task_id: str) -> TaskResult | None:
    result = client.query_result(task_id)
    return result if result is not None and result.is_successful is not None else None


def test_run_procedure_with_zero_returns_at_once(client: Client, tmp_path: Path) -> None:
    start = time.monotonic()
    result = client.run_procedure(RunFunction(tasks.hold, str(tmp_path)), waiting_seconds=0)
    assert time.monotonic() - start < 1
    assert result.is_successful is None
    assert result.task_id
    (tmp_path / "holding.go").touch()


def test_run_procedure_below_zero_waits_until_the_end(client: Client, tmp_path: Path) -> None:
    threading.Timer(1.2, (tmp_path / "holding.go").touch).start()
    result = client.run_procedure(RunFunction(tasks.hold, str(tmp_path)), waiting_seconds=-1)
    assert result.is_successful is True
    assert result.data == "holding"


def test_run_procedure_waits_one_second_unless_told(client: Client, tmp_path: Path) -> None:
    start = time.monotonic()
    result = client.run_procedure(RunFunction(tasks.hold, str(tmp_path)))
    assert 0.9 <= time.monotonic() - start < 3
    assert result.is_successful is None
    (tmp_path / "holding.go").touch()


def test_run_procedure_hands_back_a_failure_as_an_instance(client: Client) -> None:
    result = client.run_procedure(RunFunction(tasks.half, 1), waiting_seconds=-1)
    assert result.is_successful is False
    assert isinstance(result.data, tasks.OddNumber)


def test_query_result_of_an_unknown_task_is_none(client: Client) -> None:
    assert client.query_result("no-such-task") is None


def test_query_result_of_a_running_task_is_not_finished_and_stays(client: Client, tmp_path: Path) -> None:
    task_id = client.run_procedure(RunFunction(tasks.hold, str(tmp_path)), 0).task_id
    for _ in range(3):
        result = client.query_result(task_id)
        assert result is not None and result.is_successful is None
    (tmp_path / "holding.go").touch()


def test_query_result_takes_the_result_away(client: Client) -> None:
    task_id = client.run_procedure(RunFunction(tasks.double, 4), 0).task_id
    result = wait_until(lambda: _finished(client, task_id))
    assert (result.is_successful, result.data, result.task_id) == (True, 8, task_id)
    assert client.query_result(task_id) is None


def test_a_result_that_run_procedure_handed_back_is_taken(client: Client) -> None:
    result = client.run_procedure(RunFunction(tasks.double, 4), waiting_seconds=-1)
    assert result.is_successful is True
    assert client.query_result(result.task_id) is None


@pytest.mark.own_server
def test_quit_stops_the_server(lone_server: Server, client: Client) -> None:
    client.quit()
    wait_until(lambda: not lone_server.is_listening)


def test_a_client_is_used_from_many_threads(client: Client) -> None:
    results: dict[int, int] = {}

    def work(number: int) -> None:
        results[number] = client.run(tasks.double, number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number * 2 for number in range(10)}


# --- responses that never raise ---------------------------------------------------------------------------------------


def test_ajax_calls_answer_with_the_four_words(client: Client, tmp_path: Path) -> None:
    success = client.ajax_run_procedure(RunFunction(tasks.double, 4), waiting_seconds=-1)
    error = client.ajax_run_procedure(RunFunction(tasks.half, 3), waiting_seconds=-1)
    pending = client.ajax_run_procedure(RunFunction(tasks.hold, str(tmp_path)), waiting_seconds=0)
    unknown = client.ajax_query_result("no-such-task")
    assert isinstance(success, TaskResponse) and isinstance(success, dict)
    assert success == TaskResponse.SUCCESS and success["status"] == "SUCCESS" and success["data"] == 8
    assert error == TaskResponse.ERROR and error["status"] == "ERROR" and error["data"] == "3 is odd"
    assert pending == TaskResponse.TBD and pending["status"] == "TBD"
    assert unknown == TaskResponse.NONE and unknown["status"] == "NONE"
    assert set(success) == {"task_id", "status", "data", "followup_task_ids"}
    (tmp_path / "holding.go").touch()
    assert wait_until(lambda: _answer(client, pending["task_id"]))["data"] == "holding"
    assert client.ajax_query_result(pending["task_id"]) == TaskResponse.NONE


def _answer(client: Client, task_id: str) -> TaskResponse | None:
    response = client.ajax_query_result(task_id)
    return None if response == TaskResponse.TBD else response


def test_ajax_calls_never_raise(tmp_path: Path) -> None:
    client = Client(str(tmp_path / "nobody"), "AF_UNIX", b"key")
    for response in (client.ajax_run_procedure(RunFunction(tasks.double, 4)), client.ajax_query_result("any")):
        assert response == TaskResponse.ERROR
        assert isinstance(response["data"], str) and response["data"]
    client.close()


def test_an_ajax_call_with_what_cannot_be_pickled_is_an_error_response(client: Client) -> None:
    response = client.ajax_run_procedure(RunFunction(tasks.double, threading.Lock()), waiting_seconds=-1)
    assert response == TaskResponse.ERROR
    assert "lock" in response["data"]


# --- procedures -------------------------------------------------------------------------------------------------------


def test_the_return_value_of_a_procedure_is_the_data(client: Client) -> None:
    class Subtract(tasks.Add):
        def run(self, messenger: Messenger) -> int:
            return self.first - self.second

    assert client.run_procedure(tasks.Add(1, 2), waiting_seconds=-1).data == 3
    assert client.run_procedure(Subtract(1, 2), waiting_seconds=-1).data == -1


def test_task_failed_is_an_expected_failure(client: Client) -> None:
    class Refuse(Procedure):
        def run(self, messenger: Messenger) -> None:
            raise TaskFailed("no rows")

    result = client.run_procedure(Refuse(), waiting_seconds=-1)
    assert result.is_successful is False
    assert type(result.data) is TaskFailed
    assert str(result.data) == "no rows"


def test_the_base_procedure_has_nothing_to_do(client: Client) -> None:
    with pytest.raises(NotImplementedError):
        Procedure().run(None)  # type: ignore[arg-type]
    result = client.run_procedure(Procedure(), waiting_seconds=-1)
    assert isinstance(result.data, NotImplementedError)


def test_an_attribute_of_a_procedure_is_set_once() -> None:
    procedure = tasks.Add(1, 2)
    procedure.first = 1
    with pytest.raises(AttributeError):
        procedure.first = 5
    assert procedure.first == 1


def test_run_function_takes_any_arguments(client: Client) -> None:
    result = client.run_procedure(RunFunction(sorted, [3, 1, 2], reverse=True), waiting_seconds=-1)
    assert result.data == [3, 2, 1]


def test_map_function_runs_one_task_per_param_and_keeps_the_order(client: Client) -> None:
    result = client.run_procedure(MapFunction(tasks.double, [3, 1, 2]), waiting_seconds=-1)
    assert result.data == [6, 2, 4]
    failed = client.run_procedure(MapFunction(tasks.half, [2, 5, 4]), waiting_seconds=-1)
    assert isinstance(failed.data, tasks.OddNumber)


# --- task and result --------------------------------------------------------------------------------------------------


def test_a_task_has_a_unique_id_and_a_timestamp_from_its_making() -> None:
    before = time.time()
    made = [Task(RunFunction(tasks.double, 1)) for _ in range(1000)]
    assert len({task.task_id for task in made}) == 1000
    assert all(isinstance(task.task_id, str) for task in made)
    assert all(before <= task.timestamp <= time.time() for task in made)
    assert made[0].is_source_blocking is False
    assert Task(RunFunction(tasks.double, 1), is_source_blocking=True).is_source_blocking is True


def test_a_task_result_is_made_by_position() -> None:
    result = TaskResult("id", True, 5)
    assert (result.task_id, result.is_successful, result.data, tuple(result.followup_task_ids)) == ("id", True, 5, ())
    assert tuple(TaskResult("id", True, 5, ("a", "b")).followup_task_ids) == ("a", "b")


# --- messenger ----------------------------------------------------------------------------------------------------


def test_run_procedure_inside_a_task_returns_the_data_or_raises(client: Client) -> None:
    assert client.run_procedure(tasks.Half(8), waiting_seconds=-1).data == 4
    assert isinstance(client.run_procedure(tasks.Half(7), waiting_seconds=-1).data, tasks.OddNumber)


def test_submit_tasks_with_need_followup_lists_them_in_the_result(client: Client) -> None:
    class Plan(Procedure):
        def run(self, messenger: Messenger) -> str:
            messenger.submit_tasks([Task(RunFunction(tasks.double, n)) for n in (1, 2)], need_followup=True)
            messenger.submit_tasks([Task(RunFunction(tasks.double, 3))])
            return "planned"

    result = client.run_procedure(Plan(), waiting_seconds=-1)
    assert result.data == "planned"
    assert len(result.followup_task_ids) == 2
    found = [
        wait_until(lambda task_id=task_id: _finished(client, task_id)).data for task_id in result.followup_task_ids
    ]
    assert found == [2, 4]
    response = client.ajax_run_procedure(Plan(), waiting_seconds=-1)
    assert len(response["followup_task_ids"]) == 2


def test_query_results_inside_a_task_has_the_same_rules_as_the_clients(server: Server) -> None:
    """On two workers: a parent that polls does not wait, so it keeps its slot."""

    class Collect(Procedure):
        def run(self, messenger: Messenger) -> Any:
            submitted = [Task(RunFunction(tasks.double, n)) for n in (1, 2)]
            messenger.submit_tasks(submitted)
            ids = [task.task_id for task in submitted]
            found: dict[str, Any] = {}
            while len(found) < 2:
                for task_id, result in zip(ids, messenger.query_results(ids), strict=True):
                    if result is not None and result.is_successful is not None:
                        found[task_id] = result.data
            return [found[task_id] for task_id in ids], messenger.query_results([*ids, "no-such-task"])

    with Client(server.address, server.family, server.authkey) as client:
        assert client.run_procedure(Collect(), waiting_seconds=-1).data == ([2, 4], [None, None, None])


@pytest.mark.parametrize("is_source_blocking", [True, False])
def test_a_task_that_waits_by_asking_again_and_again_needs_no_second_worker(
    client: Client, is_source_blocking: bool
) -> None:
    class Poll(Procedure):
        def __init__(self) -> None:
            self.is_source_blocking = is_source_blocking

        def run(self, messenger: Messenger) -> Any:
            task = Task(RunFunction(tasks.double, 4), is_source_blocking=self.is_source_blocking)
            messenger.submit_tasks([task])
            while True:
                (result,) = messenger.query_results([task.task_id])
                if result is None or result.is_successful is not None:
                    return result and result.data
                time.sleep(0.01)

    assert client.run_procedure(Poll(), waiting_seconds=15).data == 8
