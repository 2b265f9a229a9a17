"""The payloads of a task: its call on the way there, its result on the way back.

The server passes them on as they are. Only clients and task processes turn them into objects.

Runs in: clients and task processes. Imported by: the zygote, so nothing heavy is imported here.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from palpable._wire.by_value_pickler import ATOMS, PROTOCOL, dumps_by_value
from palpable._wire.caller_classes import dumps_for_caller
from palpable._wire.culprit import find_culprit, kind_of
from palpable._wire.failure import exception_of
from palpable._wire.function_forms import NAMED_MARK
from palpable._wire.named_function import loads_named
from palpable._wire.pickled_exception import PickledException, dumps_exception
from palpable._wire.pickled_function import PickledFunction, dumps_function, name_of
from palpable._wire.plain_function import loads_plain
from palpable.units.task_exceptions import NotPicklable, NotUnpicklable

if TYPE_CHECKING:
    from palpable._wire.messages import Report
    from palpable.procedures.procedure import Procedure

__all__ = [
    "MODULE_NOT_FOUND",
    "PickledException",
    "PickledFunction",
    "count_picklable",
    "dumps_call",
    "dumps_exception",
    "dumps_function",
    "dumps_param",
    "dumps_params",
    "dumps_procedure",
    "dumps_result",
    "exception_of",
    "loads",
    "name_of",
    "result_of",
]

MODULE_NOT_FOUND = (
    "The function or its arguments could not be loaded where the task runs. Install this module for the server's "
    "Python, or start the server in the folder that the module lies in."
)
"""What a task process notes on the error of a module that is missing when it loads its task."""
_dumps, _loads = pickle.dumps, pickle.loads
_are_atoms = ATOMS.issuperset


def dumps_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return `(args, kwargs)` pickled; about a microsecond when all are numbers, strings, bytes or None.

    Raises:
        NotPicklable: an argument can't be pickled; the message names it.
    """
    # Plain pickle is 5 times as fast, but writes what is of `__main__` by its name, unseen. Atoms hold no such thing.
    if kwargs:
        is_plain = _are_atoms(map(type, args)) and _are_atoms(map(type, kwargs.values()))
    else:
        is_plain = type(args[0]) in ATOMS if len(args) == 1 else _are_atoms(map(type, args))
    if is_plain:
        return _dumps((args, kwargs), PROTOCOL)
    try:
        return dumps_by_value((args, kwargs))
    except Exception as error:  # __reduce__ and the like are the user's, and may raise anything
        named = [(f"argument {number}", arg) for number, arg in enumerate(args, 1)]
        named += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
        raise _not_picklable(named, error, dumps_by_value, _ARGUMENT_ADVICE) from error


def dumps_param(param: Any, position: int) -> bytes:
    """Return the call with one param of many pickled. Raises NotPicklable as `dumps_params` does."""
    if type(param) in ATOMS:
        return _dumps(((param,), {}), PROTOCOL)
    try:
        return dumps_by_value(((param,), {}))
    except Exception as error:  # as above
        raise _not_picklable([(f"params[{position}]", param)], error, dumps_by_value, _ARGUMENT_ADVICE) from error


def dumps_params(params: Sequence[Any], position: int = 0) -> bytes:
    """Return the params of a chunk pickled: a range as its three numbers, all else as a list.

    Args:
        position: of the first one among all that the caller passed.

    Raises:
        NotPicklable: one can't be pickled; the message says which.
    """
    if type(params) is range:
        return _dumps(params, PROTOCOL)
    params = params if isinstance(params, list) else list(params)
    try:
        return dumps_by_value(params)
    except Exception as error:  # as above
        named = [(f"params[{number}]", param) for number, param in enumerate(params, position)]
        raise _not_picklable(named, error, dumps_by_value, _ARGUMENT_ADVICE) from error


def count_picklable(params: Sequence[Any]) -> int:
    """Return how many come before the first that can't be pickled."""
    for number, param in enumerate(params):
        try:
            dumps_by_value(param)
        except Exception:  # as above
            return number
    return len(params)


def dumps_procedure(procedure: Procedure) -> bytes:
    """Return `procedure` pickled. Raises NotPicklable as `dumps_call` does."""
    try:
        return dumps_by_value(procedure)
    except Exception as error:  # as above
        named = [(f"the procedure {type(procedure).__qualname__}", procedure)]
        raise _not_picklable(named, error, dumps_by_value, _ARGUMENT_ADVICE) from error


def dumps_result(value: Any) -> bytes:
    """Return what a task returned, pickled so that instances become instances of the caller's own classes.

    Raises:
        NotPicklable: it can't be pickled; the message names the part.
    """
    if type(value) in ATOMS:
        return _dumps(value, PROTOCOL)
    try:
        return dumps_for_caller(value)
    except Exception as error:  # as above
        advice = _ADVICE_OF_TYPE.get(type(value), _RESULT_ADVICE)
        raise _not_picklable([("the result", value)], error, dumps_for_caller, advice) from error


def loads(data: bytes) -> Any:
    """Return the object in `data`. Raises whatever unpickling it raises."""
    form = data[:1]
    if form == b"\x80":
        return pickle.loads(data)
    return loads_named(data) if form == NAMED_MARK else loads_plain(data) if form == b"\0" else pickle.loads(data)


def result_of(report: Report) -> Any:
    """Return what the task of a successful report returned.

    Raises:
        NotUnpicklable: the bytes can't be turned into an object here; its cause says why.
    """
    if report.payload is None:
        return None
    try:
        return _loads(report.payload)
    except (Exception, SystemExit) as error:  # __setstate__ and the like are the user's, and may raise anything
        raise NotUnpicklable(
            f"the result of task {report.task_id} can't be unpickled here: {type(error).__qualname__}: {error}. "
            f"The task did succeed. Install here what the result is made of, or return plain data."
        ) from error


_ARGUMENT_ADVICE = "Pass what it is made from (a path, a host and port), and make it inside the function."
_RESULT_ADVICE = "Return plain data instead: numbers, strings, lists, dicts, arrays, simple classes."
_ADVICE_OF_TYPE: dict[type, str] = {
    CoroutineType: "An async function runs when asyncio.run is given what it returns: do so inside the task.",
    GeneratorType: "Return a list of what it yields.",
}


def _not_picklable(
    named: list[tuple[str, Any]], error: Exception, dumps: Callable[[Any], bytes], advice: str
) -> NotPicklable:
    """Return the error for the first of the named values that can't be pickled."""
    for name, value in named:
        try:
            dumps(value)
        except Exception:  # as above
            culprit = find_culprit(value, dumps)
            because = f", because of its {culprit}" if culprit else ""
            return NotPicklable(f"{name} (a {kind_of(value)}) can't be pickled{because}: {error}. {advice}")
    return NotPicklable(f"{named[0][0] if named else 'it'} can't be pickled: {error}. {advice}")
