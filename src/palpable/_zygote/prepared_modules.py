"""Modules of programs, made ready in the zygote as far as nothing of them has to run.

Runs in: the zygote (`prepare`) and the task process (`load`, and as a finder of the import system).

To import a module a task process has to search for it, read it and make an object for it: 0.5 ms, most of it because
all that the import system writes to lies in memory that is copied first. So the zygote does that beforehand for the
modules that the server names, and a task only runs their code. Every task still runs it itself, as it would without
this: the zygote runs nothing of the user's, and nothing of a module is older than the task.

The server names the module of a function as soon as it is told of that; for these, `load` does without the import
system. What such a module imports in turn the tasks find out: what one of them had to search for, and could have been
ready, it says at its end (`searched`). From then on the import system finds it here (`find_spec`).

What was found may be out of date when a task needs it. So the system is asked for the times of the file and of all
folders where the module could also be, as the import system does. All is left to that if the file has changed, if a
folder has and now holds something that would be found before, or if the task has changed where is searched, or how:
packages that check types, say, have what is imported after them changed on its way.

Not prepared is what the import system does not find in a plain source file: namespace packages, extension modules,
archives, what finders of other libraries find.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
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
MAX_SEARCHED, MAX_NAME = 100, 255
"""Names that a task says at once, and the length of one."""


class _Prepared(NamedTuple):
    module: ModuleType
    """Empty, but for what the import system puts into it before it runs its code."""
    code: CodeType
    source: tuple[str, int]
    """The file and its modification time in ns."""
    folders: tuple[tuple[str, int, tuple[str, ...]], ...]
    """Where was searched: each folder, its modification time, and what would be found there before the file."""
    path: list[str]
    """A copy of where was searched: `sys.path`, or `__path__` of the package."""
    cwd: str
    """The current folder, if that was searched by being the current one; else empty."""
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
        """Of each module that was named: which ones are to be run for it, in order."""
        self._searchers: list[Any] = []
        """What took part in the searches."""
        self.searched: list[str] = []
        """What the task had to search for, and is not known to be unfit."""

    def take_searched(self) -> list[str]:
        """Return what was searched for since the last call."""
        searched, self.searched = self.searched, []
        return searched

    def note_searched(self, name: str) -> None:
        """A task has found this module of its program in a plain source file, by searching."""
        if name not in self._chains:
            self._say(name)

    def _say(self, name: str) -> None:
        # Whoever imports by a string may do so by any: the server is told of what an `import` can say.
        is_plain = type(name) is str and len(name) <= MAX_NAME and all(map(str.isidentifier, name.split(".")))
        if is_plain and len(self.searched) < MAX_SEARCHED and name not in self.searched:
            self.searched.append(name)

    def prepare(self, name: str) -> None:
        """Make the module and the packages it is in ready, as far as they are fit for it. Never raises."""
        names = name.split(".")
        chain = [".".join(names[: count + 1]) for count in range(len(names))]
        self._chains[name] = ()
        try:
            self._searchers = _searchers()
            for one in chain:
                if one not in sys.modules and not self._is_ready(one, self._where(one)) and not self._prepare(one):
                    return
            self._chains[name] = tuple(one for one in chain if one not in sys.modules)
        except Exception:  # whatever is wrong with it, the task that imports it is told; and it may be mended
            del self._chains[name]

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
            parent = one.rpartition(".")[0]
            if not self._is_ready(one, getattr(modules.get(parent), "__path__", None) if parent else sys.path):
                break
            prepared = self._ready[one]
            module, code = prepared.module, prepared.code
            modules[one] = module
            try:
                exec(code, module.__dict__)
            except BaseException:
                modules.pop(one, None)
                raise
            module.__spec__._initializing = False  # type: ignore[union-attr]
            if parent in modules:
                setattr(modules[parent], prepared.name, modules[one])  # it may have put something else in its own place
        return modules[name] if name in modules else self._import_module(name)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return how to import the module, if it is ready: with the module and the code that are here."""
        prepared = self._ready.get(name)
        if prepared is None:
            return None
        if not self._is_ready(name, sys.path if path is None else path):
            with suppress(OSError):
                if os.stat(prepared.source[0]).st_mtime_ns != prepared.source[1]:
                    self._say(name)  # the next task shall find it ready again
            return None
        spec, module, code = prepared.module.__spec__, prepared.module, prepared.code
        assert spec is not None
        loader: Any = spec.loader

        def get_code(_name: str) -> CodeType:
            del loader.get_code, loader.create_module  # it is as it was, also for whoever looks at it later
            return code

        loader.create_module, loader.get_code = lambda _spec: module, get_code
        return spec

    def _is_ready(self, name: str, path: object) -> bool:
        """Whether a search in `path` would give now what is here."""
        ready = self._ready.get(name)
        if (
            ready is None
            or ready.path != path
            or "__builtins__" in ready.module.__dict__  # its code has run already, and was thrown away
            or (ready.cwd and ready.cwd != os.getcwd())
            or self._searchers != _searchers()
        ):
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

    def _where(self, name: str) -> list[str] | None:
        """Return where the module is searched for; None if that is no list of folders."""
        parent = name.rpartition(".")[0]
        if not parent:
            return sys.path
        package = self._ready[parent].module if parent in self._ready else sys.modules[parent]
        path = getattr(package, "__path__", None)
        return path if type(path) is list else None

    def _prepare(self, name: str) -> bool:
        if len(self._ready) >= MAX_PREPARED and name not in self._ready:
            return False
        parent, _, last = name.rpartition(".")
        path = self._where(name)
        if path is None:
            return False
        spec = self._find(name, path if parent else None)
        loader = spec.loader if spec is not None else None
        if spec is None or type(loader) is not SourceFileLoader or spec.origin is None:
            return False
        folders = _folders_until(path, spec, last)
        if folders is None:
            return False
        source = spec.origin, os.stat(spec.origin).st_mtime_ns
        code = loader.get_code(name)
        if code is None:
            return False
        module = module_from_spec(spec)
        spec._initializing = True  # type: ignore[attr-defined]  # for the message of an import that goes in a circle
        cwd = os.getcwd() if "" in path else ""
        self._ready[name] = _Prepared(module, code, source, folders, path.copy(), cwd, last)
        return True

    def _find(self, name: str, path: list[str] | None) -> ModuleSpec | None:
        """Find the module as the import system would; None also if anything but a search of folders finds it."""
        for finder in sys.meta_path:
            if finder is self or finder in self._own_finders:
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


def _searchers() -> list[Any]:
    """Return all that has a say before a folder is searched, and what makes those that search it."""
    try:
        return [*sys.meta_path[: sys.meta_path.index(PathFinder)], *sys.path_hooks]
    except ValueError:  # somebody else does that now
        return [*sys.meta_path, *sys.path_hooks]


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
