"""Whose options count: those of the call before those of the function before those of the client.

Each level holds only what was set there, so that an option set to its default wins too. What is sent is made once for
each function and view: the tasks that travel in one message are those with the identical struct.

Runs in: clients, and task processes that submit sub-tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

from palpable._wire.blake2 import blake2b
from palpable._wire.messages import TaskOptions
from palpable.units.task_function import fields_of
from palpable.units.task_options import Fields, checked_fields, wire_options

_KEY_PERSON = b"palpable-task-id"
"""Keeps the ids apart from every other use of the same hash."""


MOST_REMEMBERED = 256
"""Functions with options whose structs a view keeps. One for each call of a function's `options` would be too many."""


class OptionLevels:
    """The options of a client, and those of a view of it. Never changes.

    Attributes:
        plain: for a function without options of its own.
    """

    __slots__ = ("_made", "_per_call", "_per_client", "plain")

    def __init__(self, per_client: Fields, per_call: Fields | None = None) -> None:
        self._per_client = per_client
        self._per_call = per_call or {}
        self._made: dict[int, tuple[Fields, TaskOptions]] = {}
        self.plain: TaskOptions = wire_options({**self._per_client, **self._per_call})

    def of(self, function: Any) -> TaskOptions:
        """Return the options with which a call of `function` is sent; the identical struct every time."""
        if type(function) is FunctionType:
            return self.plain  # without a further look: this is done for every task
        fields = fields_of(function)
        if fields is None:
            return self.plain
        made = self._made.get(id(fields))
        if made is None:
            made = fields, wire_options({**self._per_client, **fields, **self._per_call})
            if len(self._made) >= MOST_REMEMBERED:
                self._made.clear()
            # The fields are kept along, so that no other can have their id.
            self._made[id(fields)] = made
        return made[1]

    def nearer(self, options: Mapping[str, Any]) -> OptionLevels:
        """Return these, with `options` set for the call.

        Raises:
            TypeError, ValueError: there is no such option, or it is out of range; the message names it.
        """
        return OptionLevels(self._per_client, {**self._per_call, **checked_fields(options)})

    def with_default(self, options: Mapping[str, Any]) -> OptionLevels:
        """Return these, with `options` set for the client: those of the function and of the call still win."""
        return OptionLevels({**self._per_client, **checked_fields(options, whose="a client")}, self._per_call)

    def for_function(self, fields: Fields) -> OptionLevels:
        """Return these, for calls of a function with these options that is sent by its name, and so carries none."""
        return OptionLevels({**self._per_client, **fields}, self._per_call)

    def __reduce__(self) -> tuple[Any, ...]:
        return OptionLevels, (self._per_client, self._per_call)


def client_levels(options: Mapping[str, Any]) -> OptionLevels:
    """Return the levels of a client with these options. Raises as `OptionLevels.nearer`."""
    return OptionLevels(checked_fields(options, whose="a client"))


def task_id_for_key(idempotency_key: str) -> str:
    """Return the id of the task with this key; whoever submits it, and whenever, it is the same."""
    return blake2b(idempotency_key.encode("utf-8", "surrogatepass"), digest_size=16, person=_KEY_PERSON).hexdigest()


def check_has_no_key(options: TaskOptions) -> None:
    """Raise ValueError for a call that makes many tasks, if the options name one."""
    if options.idempotency_key:
        raise ValueError(
            f"idempotency_key={options.idempotency_key!r} names one task, and this call makes many: "
            f"use it with submit, run or run_procedure"
        )
