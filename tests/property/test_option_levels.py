"""Whose options count, for any options at any levels."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from palpable import task
from palpable._wire.messages import TaskOptions
from palpable.units.option_levels import client_levels
from palpable.units.task_function import fields_of

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "isolation": st.sampled_from([None, "task", "worker"]),
    "timeout_seconds": st.none() | st.floats(0.001, 1e9),
    "priority": st.none() | st.integers(-5, 5),
    "retries": st.none() | st.integers(0, 1000),
    "backoff_seconds": st.none() | st.floats(0, 86400),
    "at_most_once": st.none() | st.booleans(),
    "delay_seconds": st.none() | st.floats(0, 1e9),
    "name": st.none() | st.sampled_from(["a", "b"]),
    "tags": st.none() | st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(tuple),
}
options = st.fixed_dictionaries({}, optional=VALUES)


@given(options, st.lists(options, max_size=3), st.lists(options, max_size=3))
def test_of_those_who_set_an_option_the_nearest_wins(
    client: dict[str, Any], functions: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> None:
    function: Any = len
    for level in functions:
        function = task(**level)(function)
    levels = client_levels(client)
    for level in calls:
        levels = levels.nearer(level)
    expected = {}
    for level in [client, *functions, *calls]:
        expected.update(level)
    values = {name: value for name, value in expected.items() if value is not None}
    to_default = {name for name, value in values.items() if value == getattr(TaskOptions(), name)}
    sent = levels.of(function)
    assert set(sent.set_to_default) == to_default
    assert replace(sent, set_to_default=()) == TaskOptions(**values)
    assert levels.of(function) is levels.of(function)


@given(options, options, options)
def test_a_function_that_is_known_by_its_name_has_the_options_it_would_have_here(
    client: dict[str, Any], own: dict[str, Any], call: dict[str, Any]
) -> None:
    function = task(**own)(len)
    levels = client_levels(client).nearer(call)
    fields = fields_of(function)
    assert fields is not None
    assert levels.for_function(fields).plain == levels.of(function)
