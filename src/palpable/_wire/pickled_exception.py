"""A task's exception as bytes, proven to load again, and its traceback as text.

An exception often can't be pickled as it is: its `__init__` takes other parameters than `args` holds, or an attribute
is a lock or a socket. Its type is what the caller's `except` looks for, so the type is kept wherever the caller has
it: first the exception's own way of pickling is tried, then its class, `args` and attributes set directly, without
those that can't travel and with a note that names them.

Runs in: task processes. Speaks with: whoever asked for the task.
"""

from __future__ import annotations

import io
import os
import pickle
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from palpable._wire.caller_classes import ResultPickler, came_by_value, dumps_for_caller, goes_by_value
from palpable._wire.culprit import kind_of
from palpable._wire.sendable_text import sendable
from palpable.units.task_exceptions import PalpableError, RemoteTraceback

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MAX_MESSAGE_CHARACTERS = 16_000
_MAX_TRACEBACK_CHARACTERS = 128_000
_MAX_DEPTH = 50
"""Of exceptions in exceptions, when frames are left out of a traceback."""


class PickledException(NamedTuple):
    """What a `TaskEnded` says of the exception that a task raised. `payload` is None if it can't be pickled."""

    payload: bytes | None
    error_type: str
    error_message: str
    traceback: str


def dumps_exception(error: BaseException) -> PickledException:
    """Return `error` pickled, with its traceback. Never raises an `Exception`, whatever the exception's class does."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    error_type, error_message = (_cut(text, _MAX_MESSAGE_CHARACTERS) for text in (name, _text_of(error)))
    payload: bytes | None = None
    # A class made in this task has no `except` that waits for it: half of its instance is worth less than the text.
    ways = (_dumps_its_own_way, _dumps_piece_by_piece) if _is_known_elsewhere(kind) else (_dumps_its_own_way,)
    for dumps in ways:
        try:
            payload = dumps(error)
            break
        except Exception:  # its class is the user's, and may raise anything
            continue
    return PickledException(payload, error_type, error_message, _traceback_of(error))


def _is_known_elsewhere(kind: type) -> bool:
    try:
        return came_by_value(kind) or not goes_by_value(kind)
    except Exception:  # as below
        return False


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as raised:  # as above
        return f"<its __str__ raised {type(raised).__qualname__}>"


def _cut(text: str, limit: int) -> str:
    text = sendable(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


# --- as bytes ---------------------------------------------------------------------------------------------------


def _dumps_its_own_way(error: BaseException) -> bytes:
    payload = dumps_for_caller(error)
    loaded = pickle.loads(payload)
    if type(loaded) is not type(error):
        raise pickle.PicklingError("it loads as something else")
    notes = getattr(error, "__notes__", None)
    if notes and getattr(loaded, "__notes__", None) != notes:  # its own __reduce__ leaves them out
        payload = dumps_for_caller(_Noted(error, [str(note) for note in notes]))
        pickle.loads(payload)
    return payload


def _dumps_piece_by_piece(error: BaseException) -> bytes:
    with io.BytesIO() as file:
        _PiecewisePickler(file).dump(error)
        payload = file.getvalue()
    if type(pickle.loads(payload)) is not type(error):
        raise pickle.PicklingError("it loads as something else")
    return payload


class _Noted:
    """Pickles as an exception to which notes are added."""

    def __init__(self, error: BaseException, notes: list[str]) -> None:
        self._error = error
        self._notes = notes

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_notes, (self._error, self._notes)


def _with_notes(error: BaseException, notes: list[str]) -> BaseException:
    error.__notes__ = notes
    return error


class _PiecewisePickler(ResultPickler):
    """Writes exceptions, also those inside other exceptions, without their own `__reduce__` and `__init__`."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, BaseException):
            return super().reducer_override(obj)
        # The reduce of the builtin class knows what it keeps outside of `args` and `__dict__`: errno, name, path...
        _, args, *state = _builtin_base(type(obj)).__reduce__(obj)
        left_out: list[str] = []
        args = tuple(_portable(arg, f"argument {number}", left_out) for number, arg in enumerate(args))
        attributes: dict[str, Any] = {}
        for name, value in (state[0] if state and state[0] else {}).items():
            before = len(left_out)
            portable = _portable(value, name, left_out)
            if len(left_out) == before:
                attributes[name] = portable
        if left_out:
            note = f"Left out on the way from the task, since it can't be pickled: {', '.join(left_out)}."
            attributes["__notes__"] = [*attributes.get("__notes__", ()), note]
        return _rebuild, (type(obj), args, attributes)


def _portable(value: Any, name: str, left_out: list[str]) -> Any:
    """Return `value`, or its repr if it can't travel, in which case its name is added to `left_out`."""
    if isinstance(value, BaseException):  # written by the same pickler
        return value
    if isinstance(value, list | tuple) and any(isinstance(item, BaseException) for item in value):
        return type(value)([_portable(item, name, left_out) for item in value])
    try:
        pickle.loads(dumps_for_caller(value))
    except Exception:  # as above
        left_out.append(f"{name} (a {kind_of(value)})")
        return f"<{kind_of(value)}>"
    return value


def _builtin_base(error_class: type[BaseException]) -> Any:
    return next(base for base in error_class.__mro__ if base.__module__ == "builtins")


def _rebuild(error_class: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    builtin = _builtin_base(error_class)
    try:
        error = error_class.__new__(error_class, *args)
    except Exception:  # a __new__ of the user's own
        error = builtin.__new__(error_class, *args)
    try:
        builtin.__init__(error, *args)
    except Exception:  # `args` was set to what that class does not take
        BaseException.__init__(error, *args)
    try:
        BaseException.__setstate__(error, attributes)
    except Exception:  # a __setattr__ or a property of the user's own
        error.__dict__.update(attributes)
    return error


# --- as text ----------------------------------------------------------------------------------------------------


def _traceback_of(error: BaseException) -> str:
    try:
        shown = traceback.TracebackException.from_exception(error, compact=True)
        for part, source in _with_sources(shown, error, _MAX_DEPTH):
            _leave_out_own_frames(part, source)
        text = "".join(shown.format())
    except Exception as raised:  # the exception's class is the user's, and may raise anything
        text = f"{type(error).__qualname__}: <its traceback can't be shown: {type(raised).__qualname__}>\n"
    return _cut(text, _MAX_TRACEBACK_CHARACTERS)


def _with_sources(
    shown: traceback.TracebackException, error: BaseException | None, depth: int
) -> Iterator[tuple[traceback.TracebackException, BaseException | None]]:
    """Yield each exception of a chain or group as it will be shown, with the exception itself."""
    yield shown, error
    if depth == 0:
        return
    if shown.__cause__ is not None:
        yield from _with_sources(shown.__cause__, error.__cause__ if error else None, depth - 1)
    if shown.__context__ is not None:
        yield from _with_sources(shown.__context__, error.__context__ if error else None, depth - 1)
    inner = getattr(error, "exceptions", ())
    for part, source in zip(shown.exceptions or (), inner, strict=False):
        yield from _with_sources(part, source, depth - 1)


def _leave_out_own_frames(shown: traceback.TracebackException, source: BaseException | None) -> None:
    """Leave out Palpable's own frames.

    Not those after the last frame of the task's code if the error is neither Palpable's nor another task's: then it
    may be a fault in Palpable, and its frames are what tells.
    """
    frames = list(shown.stack)
    last = len(frames)
    is_expected = isinstance(source, PalpableError) or isinstance(source and source.__cause__, RemoteTraceback)
    if not is_expected:
        while last and frames[last - 1].filename.startswith(_OWN_FOLDER):
            last -= 1
        last = last or len(frames)
    kept = [frame for frame in frames[:last] if not frame.filename.startswith(_OWN_FOLDER)]
    shown.stack[:] = kept + ([] if is_expected else frames[last:])
