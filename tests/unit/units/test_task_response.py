"""The dict that a web view sends."""

from __future__ import annotations

import json
import pickle

from palpable import TaskResponse, TaskResult
from palpable.units.task_exceptions import TaskFailed


def test_a_response_is_a_dict_of_four_items() -> None:
    response = TaskResponse("t", TaskResponse.SUCCESS, 42, ("f",))
    assert isinstance(response, dict)
    assert dict(response) == {"task_id": "t", "status": "SUCCESS", "data": 42, "followup_task_ids": ["f"]}
    assert json.loads(json.dumps(response)) == dict(response)


def test_a_response_equals_its_class_and_no_other() -> None:
    words = (TaskResponse.SUCCESS, TaskResponse.ERROR, TaskResponse.TBD, TaskResponse.NONE)
    assert words == ("SUCCESS", "ERROR", "TBD", "NONE")
    for word in words:
        response = TaskResponse("t", word)
        assert [response == other for other in words] == [other == word for other in words]
        assert [response != other for other in words] == [other != word for other in words]
        assert word == response


def test_two_responses_are_equal_as_dicts_are() -> None:
    assert TaskResponse("t", "TBD") == TaskResponse("t", "TBD") == dict(TaskResponse("t", "TBD"))
    assert TaskResponse("t", "TBD") != TaskResponse("u", "TBD")


def test_a_result_becomes_its_response() -> None:
    assert TaskResponse.from_result("t", None) == {
        "task_id": "t",
        "status": "NONE",
        "data": None,
        "followup_task_ids": [],
    }
    assert TaskResponse.from_result("t", TaskResult("t", None, None)) == TaskResponse.TBD
    success = TaskResponse.from_result("t", TaskResult("t", True, [1], ("f",)))
    assert success == TaskResponse.SUCCESS and success["data"] == [1] and success["followup_task_ids"] == ["f"]
    error = TaskResponse.from_result("t", TaskResult("t", False, TaskFailed("why"), ("f",)))
    assert error == TaskResponse.ERROR and error["data"] == "why" and error["followup_task_ids"] == ["f"]


def test_an_error_without_a_text_is_named_by_its_type() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert TaskResponse.from_error("t", KeyError())["data"] == "KeyError"
    assert "Hostile" in TaskResponse.from_error(None, Hostile())["data"]


def test_a_response_survives_pickling() -> None:
    response = TaskResponse("t", "ERROR", "x")
    loaded = pickle.loads(pickle.dumps(response))
    assert type(loaded) is TaskResponse and loaded == response
