"""Modules of programs, made ready in the zygote as far as nothing of them has to run.

Runs in: the zygote (`prepare`) and the task process (`load`, and as a finder of the import system).

To import a module a task process has to search for it, read it and make an object for it: half a millisecond and more,
most of it because all that is written to lies in memory that is copied first. So the zygote does that beforehand for
the modules that the server names, and a task only runs their code. Every task still runs it itself, as it would
without this: the zygote runs nothing of the user's, and nothing of a module is older than the task.

The server names the module of a function as soon as it is told of that; these `load` takes without the import system,
which would cost a small task a sixth of its time. What such a module imports in turn the tasks find out: what one of
them had to search for, and could have been ready, it says at its end (`searched`). In later tasks the import system
finds it here, just before it would search folders (`find_spec`).

What was found may be out of date when a task needs it. So the system is asked for the state of the file and of all
folders where the module could also be. All is left to the import system if the file is another one, if a folder is and
now holds something that would be found before, or if the task has changed where is searched, or how: packages that
check types, say, have what is imported after them changed on its way.

Not prepared is what the import system does not find in a plain source file: namespace packages, extension modules,
archives, what finders of other libraries find. Nor what is so large that all would wait while the zygote compiles it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    all_suffixes,
)
from importlib.util import module_from_spec, spec_from_file_location
from os import getcwd, sep, stat  # by name: a task may put others in their place, to test a program
from os.path import dirname, isdir, join
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from palpable._zygote.import_costs import installed_folders

MAX_PREPARED, MAX_BY_SEARCH = 600, 400
"""Modules that are ready, and how many there may be for another one to come from the imports of tasks: what functions
are in has room of its own. Each makes every fork a little dearer."""
MAX_SOURCE_BYTES = 1 << 18
"""To compile as much takes a tenth of a second here."""
MAX_SEARCHED, MAX_NAME = 100, 255
"""Names that a task says at once, and the length of one."""

State = tuple[int, int, int, int]
"""What changes with a file or folder: when it was modified, in ns, its size, and which one it is."""


class _Prepared(NamedTuple):
    module: ModuleType
    """Empty, but for what the import system puts into it before it runs its code. For the first who asks."""
    code: CodeType
    origin: str
    """The file."""
    state: State
    is_package: bool
    folders: tuple[tuple[str, State | None, tuple[str, ...]], ...]
    """Where was searched: each folder, its state (None: it was not there), and what would be found there before the
    file."""
    path: list[str]
    """A copy of where was searched: `sys.path`, or `__path__` of the package."""
    cwd: str
    """The current folder, if that was searched by being the current one; else empty."""


class PreparedModules:
    """What is ready.

    Args:
        own_finders: finders in `sys.meta_path` that find nothing themselves.
    """

    def __init__(self, own_finders: tuple[Any, ...] = ()) -> None:
        self._own_finders = own_finders
        self._installed = installed_folders()
        self._ready: dict[str, _Prepared] = {}
        self._chains: dict[str, tuple[tuple[str, str, str], ...]] = {}
        """For each module that was named: what is to be run, in order; the package it is in, and its name there."""
        self._used: set[str] = set()
        """Those whose module object somebody has got."""
        self._unfit: dict[str, State | None] = {}
        """What was tried in vain; with the state of the file if that is to blame."""
        self._searchers: list[Any] = []
        """What took part in the searches."""
        self.searched: list[str] = []
        """What the task had to search for, and is not known to be unfit."""

    # --- in the zygote ---

    def prepare(self, name: str) -> None:
        """Make the module and the packages it is in ready, as far as they are fit for it. Never raises."""
        self._searchers = _searchers()
        self._chains.pop(name, None)
        names = name.split(".")
        chain = []
        for count in range(1, len(names) + 1):
            one = ".".join(names[:count])
            if one in sys.modules:
                continue
            spec: ModuleSpec | None = None
            try:
                path = self._where(one)
                if path is None:
                    is_ready = False
                else:
                    is_ready = self._is_ready(one, path) or self._prepare(one, path, spec := self._find(one, path))
                state = None
            except Exception:  # whatever is wrong with it, the task that imports it is told; and it may be mended
                is_ready, state = False, _state(spec.origin) if spec is not None and spec.origin else None
            if not is_ready:
                self._ready.pop(one, None)
                self._unfit[name] = self._unfit[one] = state
                return
            self._unfit.pop(one, None)
            chain.append((one, ".".join(names[: count - 1]), names[count - 1]))
        self._chains[name] = tuple(chain)

    def _where(self, name: str) -> list[str] | None:
        """Return where the module is searched for; None if that is no list of folders."""
        parent = name.rpartition(".")[0]
        if not parent:
            return sys.path
        if parent not in sys.modules:
            return [dirname(self._ready[parent].origin)] if self._ready[parent].is_package else None
        path = getattr(sys.modules[parent], "__path__", None)
        return path if type(path) is list else None

    def _find(self, name: str, path: list[str]) -> ModuleSpec | None:
        """Find the module as the import system would; None also if anything but a search of folders finds it."""
        where = path if "." in name else None
        for finder in sys.meta_path:
            if finder is self or finder in self._own_finders:
                continue
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, where, None)
            if finder is PathFinder:
                return spec
            if spec is not None:
                return None
        return None

    def _prepare(self, name: str, path: list[str], spec: ModuleSpec | None) -> bool:
        if len(self._ready) >= MAX_PREPARED and name not in self._ready:
            return False
        loader = spec.loader if spec is not None else None
        if spec is None or type(loader) is not SourceFileLoader or spec.origin is None:
            return False
        folders = _folders_until(path, spec, name.rpartition(".")[2])
        state = _state(spec.origin)
        if folders is None or state is None or state[1] > MAX_SOURCE_BYTES:
            return False
        code = loader.get_code(name)
        if code is None:
            return False
        # What the import system has seen in the folders is forgotten: if a folder is changed twice in one tick of the
        # file system's clock, it takes it for unchanged, and a task is to know of no more than it has looked for.
        for folder in path:
            finder = sys.path_importer_cache.get(folder or getcwd())
            if type(finder) is FileFinder and not (folder + sep).startswith(self._installed):
                finder.invalidate_caches()
        is_package = spec.submodule_search_locations is not None
        cwd = getcwd() if "" in path else ""
        self._ready[name] = _Prepared(
            module_from_spec(spec), code, spec.origin, state, is_package, folders, path.copy(), cwd
        )
        return True

    def hand_out_again(self, name: str) -> None:
        """Let the next who asks have the module object, as if nobody had got it."""
        self._used.discard(name)

    def forget(self, name: str) -> None:
        """Let go of that module, as if it had never been prepared."""
        self._ready.pop(name, None)
        self._chains.pop(name, None)
        self._used.discard(name)

    # --- in a task ---

    def load(self, name: str) -> Any:
        """Return the module, imported if it was not.

        Raises:
            BaseException: whatever importing it raises.
        """
        modules = sys.modules
        if name in modules:
            return modules[name]
        for one, parent, last in self._chains.get(name, ()):
            if one in modules:  # the package that it is in has imported it
                continue
            where = getattr(modules.get(parent), "__path__", None) if parent else sys.path
            if one in self._used or not self._is_ready(one, where):
                break
            self._used.add(one)
            module, code = self._ready[one][:2]
            spec: Any = module.__spec__
            spec._initializing = True  # for the message of an import that goes in a circle
            modules[one] = module
            try:
                exec(code, module.__dict__)
            except BaseException:
                modules.pop(one, None)
                raise
            finally:
                spec._initializing = False
            if parent in modules:
                setattr(modules[parent], last, modules[one])  # it may have put something else in its own place
        return modules[name] if name in modules else import_module(name)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return how to import the module, with the code that is here; None if that is not what a search would find."""
        prepared = self._ready.get(name)
        if prepared is None or not self._is_ready(name, sys.path if path is None else path):
            return None
        if name in self._used:
            folders = [dirname(prepared.origin)] if prepared.is_package else None
            loader: Any = SourceFileLoader(name, prepared.origin)
            spec = spec_from_file_location(name, prepared.origin, loader=loader, submodule_search_locations=folders)
        else:
            self._used.add(name)
            spec = prepared.module.__spec__
            assert spec is not None
            loader = spec.loader
            loader.create_module = lambda _spec: prepared.module

        def get_code(_name: str) -> CodeType:
            # It is as any other, also for whoever looks at it later.
            loader.__dict__.pop("create_module", None)
            del loader.get_code
            return prepared.code

        loader.get_code = get_code
        return spec

    def _is_ready(self, name: str, path: object) -> bool:
        """Whether a search in `path` would give now what is here."""
        ready = self._ready.get(name)
        if ready is None or ready.path != path or self._searchers != _searchers():
            return False
        try:
            if ready.cwd and ready.cwd != getcwd():
                return False
        except OSError:  # that folder is gone
            return False
        if _state(ready.origin) != ready.state:
            return False
        for folder, state, hiding in ready.folders:
            # A folder changes often, where tasks write what they make beside their program.
            if _state(folder) != state and any(map(_state, hiding)):
                return False
        return True

    def note_searched(self, name: str, origin: str) -> None:
        """A task has found this module of its program in a plain source file, by searching."""
        if len(self.searched) >= MAX_SEARCHED or name in self.searched:
            return
        if name in self._ready:
            if self._ready[name].origin != origin or self._ready[name].state == _state(origin):
                return  # it is ready, and the task searches elsewhere, or in its own way
        elif name in self._unfit:
            if self._unfit[name] is None or self._unfit[name] == _state(origin):
                return
        elif len(self._ready) + len(self._unfit) >= MAX_BY_SEARCH:
            return
        # Whoever imports by a string may do so by any: the server is told of what an `import` can say.
        if type(name) is str and len(name) <= MAX_NAME and all(map(str.isidentifier, name.split("."))):
            self.searched.append(name)

    def take_searched(self) -> list[str]:
        """Return what was searched for since the last call."""
        searched, self.searched = self.searched, []
        return searched


def _state(path: str) -> State | None:
    """Return the state of a file or folder; None if it is not there."""
    try:
        found = stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def _searchers() -> list[Any]:
    """Return all finders until the one that searches folders, and what makes those that search one."""
    finders: list[Any] = sys.meta_path
    if PathFinder in finders:
        finders = finders[: finders.index(PathFinder) + 1]
    return [*finders, *sys.path_hooks]


def _folders_until(
    path: list[str], spec: ModuleSpec, name: str
) -> tuple[tuple[str, State | None, tuple[str, ...]], ...] | None:
    """Return the folders of `path` up to the one where `spec` was found, with what could hide it there.

    None if one of them is no plain folder, or holds a folder of that name: that becomes a package by what is put into
    it, which the folder above does not show.
    """
    assert spec.origin is not None
    folders: list[tuple[str, State | None, tuple[str, ...]]] = []
    for entry in path:
        folder = entry or getcwd()
        state = _state(folder)
        own = join(folder, name)
        if state is None:
            folders.append((folder, None, (folder,)))
            continue
        if type(sys.path_importer_cache.get(folder)) is not FileFinder:
            return None
        if spec.origin == join(own, "__init__.py"):
            inner = tuple(join(own, "__init__") + suffix for suffix in EXTENSION_SUFFIXES)
            return (*folders, (own, _state(own), inner))
        if isdir(own):
            return None
        if spec.origin == own + ".py":
            return (*folders, (folder, state, (own, *(own + suffix for suffix in EXTENSION_SUFFIXES))))
        folders.append((folder, state, (own, *(own + suffix for suffix in all_suffixes()))))
    return None
