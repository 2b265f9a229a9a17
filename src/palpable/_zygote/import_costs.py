"""What the imports of a task cost, so that the dear ones can be preloaded, and the others made ready.

Runs in: installed in the zygote, after its own imports; at work in task processes.

A finder at the head of `sys.meta_path` asks the other finders, as the import system would, and has the loader it gets
note the time. It sees only modules that are not loaded yet, so a task that imports nothing new pays nothing. Times
include the imports that a module makes itself.

The order counts: `asyncio` imports `_asyncio`, which imports `asyncio`. The other way round `asyncio` finds a half-made
`_asyncio`, and does without it, in silence. So what is preloaded is imported as the task did: the outer one first.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

OWN_PREFIX = "palpable."
"""Modules of this package, wherever it is."""
MIN_SECONDS = 0.001
"""Cheaper imports are not worth a word."""


class ImportClock:
    """A meta path finder that measures modules of the standard library, of site-packages, and of this package.

    A module within a package counts if a program imports it (`urllib.request`, `scipy.stats`: to import the package
    alone would not bring it along), and not if it comes along with another one: those are hundreds, and cost nothing
    once the one that brings them is there. Of this package too, since a program's modules often hold both the
    functions it runs as tasks and the client that submits them.

    Args:
        on_searched: called with the name of any other module that a search of folders has found in a plain source
            file, and with that file.
    """

    def __init__(self, on_searched: Callable[[str, str], None] = lambda name, origin: None) -> None:
        self.on_searched = on_searched
        self.costs: dict[str, float] = {}
        """The seconds spent on each, by name, in the order in which their imports began."""
        self._folders = installed_folders()
        self._under_way: list[str] = []
        """Measured imports, one within the other. A list, since threads import too: it is changed in one step."""

    def take_costs(self) -> dict[str, float]:
        """Return the costs since the last call."""
        costs, self.costs = self.costs, {}
        return costs

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if self._under_way and "." in name:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                if spec.origin and (spec.origin.startswith(self._folders) or name.startswith(OWN_PREFIX)):
                    self._measure(name, spec.loader)
                elif finder is PathFinder and type(spec.loader) is SourceFileLoader and spec.origin:
                    self.on_searched(name, spec.origin)
                return spec
        return None

    def _measure(self, name: str, loader: Any) -> None:
        execute = getattr(loader, "exec_module", None)
        if execute is None or not hasattr(loader, "__dict__") or isinstance(loader, type):
            return

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader is as it was, also for whoever looks at it later
            self.costs[name] = 0.0  # its place: before those that it imports
            self._under_way.append(name)
            start = time.perf_counter()
            try:
                execute(module)
            finally:
                seconds = time.perf_counter() - start
                self._under_way.remove(name)
                if seconds >= MIN_SECONDS:
                    self.costs[name] = round(seconds, 4)
                else:
                    self.costs.pop(name, None)

        loader.exec_module = exec_module


def installed_folders() -> tuple[str, ...]:
    """Return the folders of installed modules, each with a separator at its end."""
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders.update(path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))
    return tuple(sorted(folder + os.sep for folder in folders))
