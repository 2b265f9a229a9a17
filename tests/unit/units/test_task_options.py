"""The options of a task: what each may be, and what it is on the wire."""

from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from palpable import AsyncClient, Client
from palpable._wire.messages import TaskOptions
from palpable.units.option_levels import OptionLevels, client_levels, task_id_for_key
from palpable.units.task_options import OptionArguments, checked_fields, wire_options


class Refused(Exception):
    pass


def wire(**options: Any) -> TaskOptions:
    return wire_options(checked_fields(options))


def test_nothing_set_is_the_default_of_the_wire() -> None:
    assert wire() == TaskOptions()


def test_every_option_arrives_on_the_wire() -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    options = wire(
        isolation="worker",
        timeout_seconds=5,
        priority=-3,
        ends_with_client=True,
        retries=4,
        backoff_seconds=0.5,
        max_backoff_seconds=9,
        retry_on=(ValueError, Refused),
        crash_retries=2,
        at_most_once=True,
        delay_seconds=1,
        at=at,
        idempotency_key="order 17",
        name="fetch",
        tags=["red", "blue", "red"],
    )
    assert options == TaskOptions(
        isolation="worker",
        timeout_seconds=5.0,
        priority=-3,
        ends_with_client=True,
        retries=4,
        backoff_seconds=0.5,
        max_backoff_seconds=9.0,
        retry_on=("builtins.ValueError", f"{__name__}.Refused"),
        crash_retries=2,
        at_most_once=True,
        delay_seconds=1.0,
        start_at=at.timestamp(),
        idempotency_key="order 17",
        name="fetch",
        tags=("red", "blue"),
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=TaskOptions) == options


def test_the_wire_has_no_option_that_cannot_be_set() -> None:
    can_be_set = {"start_at" if name == "at" else name for name in inspect.signature(Client.options).parameters}
    assert set(TaskOptions.__struct_fields__) - can_be_set == {"is_followup", "set_to_default"}


@pytest.mark.parametrize("name", [*OptionArguments.__annotations__, "idempotency_key"])
def test_none_stands_for_the_default(name: str) -> None:
    assert wire(**{name: None}) == TaskOptions()


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1893456000.0),
        (datetime(2030, 1, 1), datetime(2030, 1, 1).timestamp()),
        (1893456000, 1893456000.0),
        (0, 0.0),
    ],
    ids=["a zone", "local time", "seconds", "the epoch"],
)
def test_a_moment_may_be_given_in_several_ways(moment: Any, seconds: float) -> None:
    assert wire(at=moment).start_at == seconds


WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("isolation", "thread", ValueError, "isolation must be 'task', 'worker' or None, not 'thread'"),
    ("timeout_seconds", 0, ValueError, r"timeout_seconds must be a number from 0.001 to 1000000000 or None, not 0"),
    ("timeout_seconds", float("nan"), ValueError, "timeout_seconds must be .*, not nan"),
    ("timeout_seconds", "5", TypeError, "timeout_seconds must be a number .*, not '5'"),
    ("priority", 1.5, TypeError, "priority must be a whole number .*, not 1.5"),
    ("priority", 2**31, ValueError, "priority must be a whole number from -2147483648 to 2147483647"),
    ("ends_with_client", 1, TypeError, "ends_with_client must be True or False, not 1"),
    ("retries", -1, ValueError, "retries must be a whole number from 0 to 1000 or None, not -1"),
    ("retries", 1001, ValueError, "retries must be a whole number from 0 to 1000 or None, not 1001"),
    ("retries", True, TypeError, "retries must be a whole number from 0 to 1000 or None, not True"),
    ("backoff_seconds", -0.1, ValueError, "backoff_seconds must be a number from 0 to 86400 or None, not -0.1"),
    ("max_backoff_seconds", 86401, ValueError, "max_backoff_seconds must be a number from 0 to 86400 or None"),
    ("retry_on", "ValueError", TypeError, "retry_on must be a class of exceptions, .*, not 'ValueError'"),
    ("retry_on", (), TypeError, r"retry_on must be .*, not \(\)"),
    ("retry_on", (ValueError, int), TypeError, "retry_on must be .*class 'int'"),
    ("retry_on", [ValueError], TypeError, "retry_on must be a class of exceptions, a tuple of such"),
    ("crash_retries", 1e3, TypeError, "crash_retries must be a whole number from 0 to 1000 or None, not 1000.0"),
    ("at_most_once", "yes", TypeError, "at_most_once must be True or False, not 'yes'"),
    ("delay_seconds", -1, ValueError, r"delay_seconds must be a number from 0 to 1000000000 or None, not -1"),
    ("at", "tomorrow", TypeError, "at must be a datetime, seconds since the epoch .*, not 'tomorrow'"),
    ("at", -1, ValueError, "at must be a datetime, seconds since the epoch .*, not -1"),
    ("at", datetime(1960, 1, 1, tzinfo=UTC), ValueError, "at must be a datetime from 1970 to 9999"),
    ("at", datetime.min, ValueError, "at must be a datetime from 1970 to 9999"),
    ("at", float("inf"), ValueError, "at must be .*, not inf"),
    ("idempotency_key", "", ValueError, "idempotency_key must be a string of 1 to 1000 printable characters, not ''"),
    ("idempotency_key", 17, TypeError, "idempotency_key must be a string of 1 to 1000 .*, not 17"),
    ("name", "a\x1b[31m", ValueError, "name must be a string of 1 to 200 printable characters"),
    ("name", "a" * 201, ValueError, r"name must be .*\(201 characters\)"),
    ("tags", "red", TypeError, "tags must be a tuple, list or set of strings, not 'red'"),
    ("tags", ["red", 1], TypeError, "each of tags must be a string"),
    ("tags", [str(number) for number in range(33)], ValueError, "tags must be at most 32 strings, not 33"),
    ("retrys", 3, TypeError, r"there is no option 'retrys' \(is it 'retries'\?\); there are isolation, "),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), WRONG)
def test_a_wrong_value_is_refused_at_once(name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Client(("localhost", 1), authkey=b"key").options(**{name: value})


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_a_client_refuses_a_wrong_option_when_it_is_made(make: Any) -> None:
    with pytest.raises(ValueError, match="retries must be a whole number from 0 to 1000"):
        make(("localhost", 1), authkey=b"key", retries=-1)
    with pytest.raises(TypeError, match="idempotency_key names one task, and can't be an option of a client"):
        make(("localhost", 1), authkey=b"key", idempotency_key="k")


@pytest.mark.parametrize(
    "method", [Client.options, AsyncClient.options, Client.__init__], ids=lambda it: it.__qualname__
)
def test_help_shows_every_option(method: Any) -> None:
    shown = inspect.signature(method).parameters
    assert set(OptionArguments.__annotations__) <= set(shown)
    assert all(shown[name].kind is inspect.Parameter.KEYWORD_ONLY for name in OptionArguments.__annotations__)
    assert "options" not in shown


def test_the_documentation_of_a_call_names_every_option() -> None:
    described = Client.options.__doc__ or ""
    assert not [
        name for name in inspect.signature(Client.options).parameters if f"{name}: " not in f"{described} self: "
    ]


# --- levels -----------------------------------------------------------------------------------------------------


def test_the_options_of_the_call_win_over_those_of_the_client_one_by_one() -> None:
    levels = client_levels({"retries": 3, "timeout_seconds": 60}).nearer({"retries": 5, "priority": 1})
    assert levels.plain == TaskOptions(retries=5, timeout_seconds=60.0, priority=1)


def test_an_option_set_to_its_default_wins_too() -> None:
    levels = (
        client_levels({"retries": 3, "timeout_seconds": 60}).nearer({"retries": 0}).nearer({"timeout_seconds": None})
    )
    assert levels.plain == TaskOptions(set_to_default=("retries",)), "so that the server's own do not count either"


def test_levels_travel_with_a_client() -> None:
    levels = client_levels({"retries": 3}).nearer({"name": "here"})
    loaded: OptionLevels = pickle.loads(pickle.dumps(levels))
    assert loaded.nearer({"priority": 1}).plain == TaskOptions(retries=3, name="here", priority=1)


def test_a_view_travels_with_its_options() -> None:
    view = Client(("localhost", 1), authkey=b"key", retries=3).options(name="here")
    loaded = pickle.loads(pickle.dumps(view))
    assert loaded.options(priority=1)._levels.plain == TaskOptions(retries=3, name="here", priority=1)


def test_a_key_is_the_same_task_everywhere() -> None:
    assert task_id_for_key("order 17") == task_id_for_key("order 17") != task_id_for_key("order 18")
    assert task_id_for_key("order 17") == "837d3458617e0f919aeeced1c69ee739"
