"""Modules of functions that tasks name, made ready in the zygote as far as nothing of them has to run.

Runs in: the zygote (`prepare`) and the task process (`load`).

To import a module a task process has to search for it, read it and make an object for it: 0.5 ms, most of it because
all that the import system writes to lies in memory that is copied first. So the zygote does that beforehand for the
modules that the server names, and a task only runs their code. Every task still runs it itself, as it would without
this: the zygote runs nothing of the user's, and nothing of a module is older than the task.

What was found may be out of date when a task needs it. So `load` asks the system for the times of the file and of all
folders where the module could also be, as the import system does. It leaves the import to that if the file has changed,
if a folder has and now holds something that would be found before, or if the task has changed where is searched.

Not prepared is what the import system does not find in a plain source file: namespace packages, extension modules,
archives, what finders of other libraries find.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    all_suffixes,
)
from importlib.util import module_from_spec
from types import CodeType, ModuleType
from typing import Any, NamedTuple

MAX_PREPARED = 200
"""Each makes every fork a little dearer."""


class _Prepared(NamedTuple):
    module: ModuleType
    """Empty, but for what the import system puts into it before it runs its code."""
    code: CodeType
    source: tuple[str, int]
    """The file and its modification time in ns."""
    folders: tuple[tuple[str, int, tuple[str, ...]], ...]
    """Where was searched: each folder, its modification time, and what would be found there before the file."""
    path: list[str] | None
    """A copy of where was searched: `sys.path`, or None if that of a package."""
    parent: str
    name: str
    """Within its package."""


class PreparedModules:
    """What is ready.

    Args:
        own_finders: finders in `sys.meta_path` that find nothing themselves.
        import_module: imports what is not ready.
    """

    def __init__(self, own_finders: tuple[Any, ...], import_module: Callable[[str], Any]) -> None:
        self._own_finders = own_finders
        self._import_module = import_module
        self._ready: dict[str, _Prepared] = {}
        self._chains: dict[str, tuple[str, ...]] = {}

    def prepare(self, name: str) -> None:
        """Make the module and the packages it is in ready, as far as they are fit for it. Never raises."""
        names = name.split(".")
        chain = [".".join(names[: count + 1]) for count in range(len(names))]
        self._chains[name] = ()
        with suppress(Exception):  # whatever is wrong with it, the task that imports it is told
            for one in chain:
                if one not in sys.modules and not self._is_ready(one) and not self._prepare(one):
                    return
            self._chains[name] = tuple(one for one in chain if one not in sys.modules)

    def forget(self, name: str) -> None:
        """Let go of that module, as if it had never been prepared."""
        self._ready.pop(name, None)
        self._chains.pop(name, None)

    def load(self, name: str) -> Any:
        """Return the module, imported if it was not.

        Raises:
            BaseException: whatever importing it raises.
        """
        modules = sys.modules
        if name in modules:
            return modules[name]
        for one in self._chains.get(name, ()):
            if one in modules:  # the package that it is in has imported it
                continue
            if not self._is_ready(one):
                break
            module, code, _, _, _, parent, last = self._ready[one]
            modules[one] = module
            try:
                exec(code, module.__dict__)
            except BaseException:
                modules.pop(one, None)
                raise
            module.__spec__._initializing = False  # type: ignore[union-attr]
            if parent in modules:
                setattr(modules[parent], last, modules[one])  # it may have put something else in its own place
        return modules[name] if name in modules else self._import_module(name)

    def _is_ready(self, name: str) -> bool:
        ready = self._ready.get(name)
        if ready is None or (ready.path is not None and ready.path != sys.path):
            return False
        stat = os.stat
        try:
            if stat(ready.source[0]).st_mtime_ns != ready.source[1]:
                return False
            for folder, changed_at, hiding in ready.folders:
                # A folder changes often, where tasks write what they make beside their program.
                if stat(folder).st_mtime_ns != changed_at and any(map(os.path.exists, hiding)):
                    return False
        except OSError:
            return False
        return True

    def _prepare(self, name: str) -> bool:
        if len(self._ready) >= MAX_PREPARED and name not in self._ready:
            return False
        parent, _, last = name.rpartition(".")
        path: list[str] | None = None
        if parent:
            package = self._ready[parent].module if parent in self._ready else sys.modules[parent]
            path = package.__spec__.submodule_search_locations if package.__spec__ else None
            if type(path) is not list:
                return False
        spec = self._find(name, path)
        loader = spec.loader if spec is not None else None
        if spec is None or type(loader) is not SourceFileLoader or spec.origin is None:
            return False
        folders = _folders_until(sys.path if path is None else path, spec, last)
        if folders is None:
            return False
        source = spec.origin, os.stat(spec.origin).st_mtime_ns
        code = loader.get_code(name)
        if code is None:
            return False
        module = module_from_spec(spec)
        spec._initializing = True  # type: ignore[attr-defined]  # for the message of an import that goes in a circle
        self._ready[name] = _Prepared(
            module, code, source, folders, sys.path.copy() if path is None else None, parent, last
        )
        return True

    def _find(self, name: str, path: list[str] | None) -> ModuleSpec | None:
        """Find the module as the import system would; None also if anything but a search of folders finds it."""
        for finder in sys.meta_path:
            if finder in self._own_finders:
                continue
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, path, None)
            if finder is PathFinder:
                return spec
            if spec is not None:
                return None
        return None


def _folders_until(path: list[str], spec: ModuleSpec, name: str) -> tuple[tuple[str, int, tuple[str, ...]], ...] | None:
    """Return the folders of `path` up to the one where `spec` was found, with what could hide it there.

    None if one of them is no plain folder.
    """
    assert spec.origin is not None
    folders: list[tuple[str, int, tuple[str, ...]]] = []
    for entry in path:
        folder = entry or os.getcwd()
        finder = sys.path_importer_cache.get(folder)
        if finder is None:
            continue  # it is not there, and the import system has taken note of that for good
        if type(finder) is not FileFinder:
            return None
        changed_at = os.stat(folder).st_mtime_ns
        own = os.path.join(folder, name)
        if spec.origin == own + ".py":
            return (*folders, (folder, changed_at, (own, *(own + suffix for suffix in EXTENSION_SUFFIXES))))
        if spec.origin == os.path.join(own, "__init__.py"):
            inner = os.path.join(own, "__init__")
            return (*folders, (folder, changed_at, tuple(inner + suffix for suffix in EXTENSION_SUFFIXES)))
        folders.append((folder, changed_at, (own, *(own + suffix for suffix in all_suffixes()))))
    return None
