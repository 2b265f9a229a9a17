"""A function that is known by its name alone, until the task that calls it imports it.

Runs in: the task process. The command line only makes and pickles what is here, and imports nothing of the user's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from palpable.units.task_exceptions import TaskFailed
from palpable.units.task_function import fields_of


class NotStarted(TaskFailed):
    """What was to run could not be begun: there is no such module, function or folder where the task is."""


class NamedFunction:
    """Calls `module:function`, imported where it is called.

    Args:
        path: a module, a colon, and what to call in it, with dots where that is inside a class.
        folder: what the function finds as its current folder, and modules are looked for there first, as with
            `python -m`. "": where the server was started.
    """

    def __init__(self, path: str, folder: str = "") -> None:
        self.path = path
        self.folder = folder
        self.__qualname__ = path  # what lists show as the task's name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with working_in(self.folder):
            return self._find()(*args, **kwargs)

    def _find(self) -> Callable[..., Any]:
        module_name, _, attributes = self.path.partition(":")
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            # A module that is there and imports one that is not is another matter: its traceback says more.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            where = f", neither in {self.folder} nor" if self.folder else ""
            raise NotStarted(
                f"{self.path}: there is no module {error.name!r}{where} where the server's Python looks"
            ) from None
        for count, name in enumerate(names := attributes.split("."), 1):
            try:
                found = getattr(found, name)
            except AttributeError:
                inside = ".".join([module_name, *names[: count - 1]])
                raise NotStarted(f"{self.path}: there is no {name!r} in {inside}") from None
        if not callable(found):
            raise NotStarted(f"{self.path} is a {type(found).__qualname__}, which can't be called")
        return found  # type: ignore[no-any-return]


class OptionsOfFunction(NamedFunction):
    """Returns the options that `module:function` carries, by `@palpable.task`, as they are on the wire."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            with working_in(self.folder):
                return dict(fields_of(self._find()) or {})
        except Exception:
            return {}  # the call of the function will meet the same, and say it


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Have `folder` as the current one, and modules found there first. Afterwards all is as before.

    Afterwards matters with isolation "worker", where the next task is somebody else's.

    Raises:
        NotStarted: there is no such folder here.
    """
    if not folder:
        yield
        return
    before, path_before = os.getcwd(), list(sys.path)
    try:
        os.chdir(folder)
    except OSError as error:
        raise NotStarted(f"it can't run in {folder}: {error.strerror}. Name another one with --folder") from None
    sys.path[:] = [folder, *(entry for entry in path_before if entry != folder)]
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path_before
