"""The options of a task: what there are, what each may be, and what it is on the wire.

One table. Whatever takes options takes `**options: Unpack[OptionArguments]`, and has them checked here, at once.

Runs in: clients, and wherever `@task` is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, TypeVar

from msgspec.structs import replace

from palpable._connection.checks import check_number
from palpable._wire.error_names import class_name
from palpable._wire.messages import TaskOptions

if TYPE_CHECKING:
    from datetime import datetime

Isolation = Literal["task", "worker"]
Fields = dict[str, Any]
"""What was set, checked, by the name of its field in `TaskOptions`. None: set to the default."""
AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


class _Unset:
    def __repr__(self) -> str:
        return "<unset>"


_UNSET = _Unset()
"""Shown by `help` as the default of an option: left out, the option stays as it is."""

_DEFAULTS = TaskOptions()
MOST_SECONDS = 1e9
"""31 years: what a length of time may be at most."""
MOST_EPOCH_SECONDS = 253_402_300_799
"""The last second of the year 9999."""
MOST_NAME_CHARACTERS = 200
MOST_KEY_CHARACTERS = 1000
MOST_TAGS = 32


class OptionArguments(TypedDict, total=False):
    """How tasks are to be run. What is left out stays as it is; None stands for the default.

    An option may be set for a call (`client.options(...)`), for a function (`@task(...)`), for a client
    (`Client(...)`), and some for a server. Each counts by itself: of those who set it, the nearest to the call wins.
    """

    isolation: Isolation | None
    """"task", a fresh process for every task, or "worker", processes that run many. Default: the server's."""
    timeout_seconds: float | None
    """What an attempt may take. Default: the server's `task_timeout_seconds`."""
    priority: int | None
    """Higher runs earlier. Default: 0."""
    ends_with_client: bool | None
    """Cancel the task when the connection of the client closes. Default: no."""
    retries: int | None
    """Further attempts after one that raised or timed out. Default: 0."""
    backoff_seconds: float | None
    """The wait before the first retry, at most; it doubles with each. Drawn at random from 0 up to that. Default: 1."""
    max_backoff_seconds: float | None
    """The wait before any retry, at most. Default: 300."""
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None
    """Retry only after errors of these classes, or of their subclasses. Default: after any."""
    crash_retries: int | None
    """Further attempts after one whose process died. Default: 0."""
    at_most_once: bool | None
    """Never run again what may have run: after a crash of the server the task ends as lost. Default: no."""
    delay_seconds: float | None
    """Not before this long after the server got the task. Default: 0."""
    at: datetime | float | None
    """Not before this moment: a datetime (local time, if it has no zone), or seconds since the epoch. Default: none."""
    name: str | None
    """Shown in place of the function's name."""
    tags: tuple[str, ...] | list[str] | set[str] | frozenset[str] | None
    """Shown with the task, and looked for in lists. Default: none."""


class CallOptionArguments(OptionArguments, total=False):
    """Those for a call, where there is one more."""

    idempotency_key: str | None
    """The same key is the same task: submitted again, it is not run again, and gives the result it gave."""


def checked_fields(options: Mapping[str, Any], *, whose: str = "") -> Fields:
    """Return what `options` set, as fields of `TaskOptions`.

    Args:
        whose: "a client", "a function" or "a server", whose options are for many calls.

    Raises:
        TypeError, ValueError: there is no such option, or it is out of range; the message names it.
    """
    fields: Fields = {}
    for name, value in options.items():
        option = _TABLE.get(name)
        if option is None:
            raise TypeError(f"there is no option {name!r}{_nearest(name)}; there are {', '.join(_TABLE)}")
        if whose and name == "idempotency_key":
            raise TypeError(f"idempotency_key names one task, and can't be an option of {whose}: use options(...)")
        fields[option.field] = None if value is None else option.check(name, value)
    return fields


def wire_options(fields: Fields) -> TaskOptions:
    """Return the struct that is sent."""
    values = {name: value for name, value in fields.items() if value is not None}
    set_to_default = tuple(name for name, value in values.items() if value == getattr(_DEFAULTS, name))
    return TaskOptions(**values, set_to_default=set_to_default)


def filled_in(options: TaskOptions, farther: Fields) -> TaskOptions:
    """Return `options` with what they leave open as `farther` says."""
    given = options.set_to_default
    missing = {
        name: value
        for name, value in farther.items()
        if value is not None and name not in given and getattr(options, name) == getattr(_DEFAULTS, name)
    }
    return replace(options, **missing) if missing else options


def takes_options(function: AnyCallable) -> AnyCallable:
    """Have `help` show the single options in place of `**options`, as type checkers do."""
    from inspect import Parameter, signature

    known = signature(function)
    kind = CallOptionArguments if "Call" in str(known.parameters["options"].annotation) else OptionArguments
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=_UNSET, annotation=getattr(hint, "__forward_arg__", hint))
        for name, hint in kind.__annotations__.items()
    ]
    parameters = [parameter for name, parameter in known.parameters.items() if name != "options"]
    function.__signature__ = known.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
    return function


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    return "".join(f" (is it {match!r}?)" for match in get_close_matches(name, _TABLE, 1))


# --- checks: each returns the value as it is on the wire --------------------------------------------------------


def _number(least: float, most: float) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        check_number(name, value, least=least, most=most, may_be_none=True)
        return float(value)

    return check


def _whole(least: int, most: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        number: int = check_number(name, value, least=least, most=most, is_whole=True, may_be_none=True)
        return number

    return check


def _isolation(name: str, value: Any) -> Any:
    if value not in ("task", "worker"):
        raise ValueError(f"{name} must be 'task', 'worker' or None, not {value!r}")
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _error_classes(name: str, value: Any) -> tuple[str, ...]:
    classes = value if isinstance(value, tuple) else (value,)
    if not classes or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in classes):
        raise TypeError(f"{name} must be a class of exceptions, a tuple of such, or None for any, not {value!r}")
    return tuple(dict.fromkeys(map(class_name, classes)))


def _moment(name: str, value: Any) -> float:
    # Who passes a datetime has imported it; most processes do without.
    datetime = getattr(sys.modules.get("datetime"), "datetime", None)
    if datetime is not None and isinstance(value, datetime):
        try:
            seconds: float = value.timestamp()
        except (OverflowError, ValueError, OSError):  # near the ends of what the calendar of the system knows
            seconds = -1.0
        if not 0 <= seconds <= MOST_EPOCH_SECONDS:
            raise ValueError(f"{name} must be a datetime from 1970 to 9999, not {value!r}")
        return seconds
    allowed = f"a datetime, seconds since the epoch (from 0 to {MOST_EPOCH_SECONDS}), or None"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if not 0 <= value <= MOST_EPOCH_SECONDS:
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return float(value)


def _text(most_characters: int) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        allowed = f"a string of 1 to {most_characters} printable characters"
        if not isinstance(value, str):
            raise TypeError(f"{name} must be {allowed}, not {value!r}")
        if not 1 <= len(value) <= most_characters or not value.isprintable():
            raise ValueError(f"{name} must be {allowed}, not {_shortened(value)}")
        return str(value)

    return check


def _tags(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, tuple | list | set | frozenset):
        raise TypeError(f"{name} must be a tuple, list or set of strings, not {value!r}")
    check = _text(MOST_NAME_CHARACTERS)
    tags = tuple(dict.fromkeys(check(f"each of {name}", tag) for tag in value))
    if len(tags) > MOST_TAGS:
        raise ValueError(f"{name} must be at most {MOST_TAGS} strings, not {len(tags)}")
    return tags if isinstance(value, tuple | list) else tuple(sorted(tags))


def _shortened(value: str) -> str:
    return repr(value) if len(value) <= 60 else f"{value[:60]!r}... ({len(value)} characters)"


class _Option(NamedTuple):
    field: str
    """Of `TaskOptions`."""
    check: Callable[[str, Any], Any]


_TABLE: dict[str, _Option] = {
    "isolation": _Option("isolation", _isolation),
    "timeout_seconds": _Option("timeout_seconds", _number(0.001, MOST_SECONDS)),
    "priority": _Option("priority", _whole(-(2**31), 2**31 - 1)),
    "ends_with_client": _Option("ends_with_client", _truth),
    "retries": _Option("retries", _whole(0, 1000)),
    "backoff_seconds": _Option("backoff_seconds", _number(0, 86400)),
    "max_backoff_seconds": _Option("max_backoff_seconds", _number(0, 86400)),
    "retry_on": _Option("retry_on", _error_classes),
    "crash_retries": _Option("crash_retries", _whole(0, 1000)),
    "at_most_once": _Option("at_most_once", _truth),
    "delay_seconds": _Option("delay_seconds", _number(0, MOST_SECONDS)),
    "at": _Option("start_at", _moment),
    "name": _Option("name", _text(MOST_NAME_CHARACTERS)),
    "tags": _Option("tags", _tags),
    "idempotency_key": _Option("idempotency_key", _text(MOST_KEY_CHARACTERS)),
}
