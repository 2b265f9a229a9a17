"""The hooks that libraries asked to be run around a fork (`os.register_at_fork`).

Runs in: the zygote.

`os.fork` runs all of them. The zygote forks without it (`os_calls.fork`), so it records who registers what, and runs
what is needed itself. In task processes nothing is changed: when user code forks there, every hook runs.

Not run are hooks that are needless when a process with one thread forks outside of any library's code:

* `threading`: makes all locks anew and drops the other threads; there are none, and no lock is held. What is left to
  do is the main thread's `native_id` (`keep_native_id_true`);
* `logging`, `concurrent.futures.thread`: acquire their locks before and release or remake them after; nobody else is
  there to hold one;
* `asyncio`: forgets the running event loop; none runs here;
* `random`: seeds from 2,500 bytes of the system's randomness; `reseed` does it with 32, at a tenth of the cost;
* Palpable's own: remake a lock, give up connections, forget a prefix for task ids; a zygote has no such thing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

Hook = Callable[[], object]

NEEDLESS = frozenset({"threading", "logging", "concurrent.futures.thread", "asyncio.events", "random"})
"""Modules whose hooks are not run, for the reasons above. Nor are those of Palpable."""

before: list[Hook] = []
"""In the order to run: the last registered runs first."""
after_in_parent: list[Hook] = []
after_in_child: list[Hook] = []

_register_at_fork = os.register_at_fork


def record() -> None:
    """From now on, record the hooks that are registered. To be called before anything registers one."""
    os.register_at_fork = _register


def _register(**hooks: Any) -> None:
    _register_at_fork(**hooks)
    module = str(sys._getframe(1).f_globals.get("__name__"))
    if module in NEEDLESS or module.startswith("palpable."):
        return
    if hook := hooks.get("before"):
        before.insert(0, hook)
    if hook := hooks.get("after_in_parent"):
        after_in_parent.append(hook)
    if hook := hooks.get("after_in_child"):
        after_in_child.append(hook)


def run(hooks: list[Hook]) -> None:
    """Run `hooks`; as with `os.fork`, what one raises is printed and otherwise ignored."""
    for hook in hooks:
        try:
            hook()
        except BaseException:
            sys.excepthook(*sys.exc_info())


def keep_native_id_true() -> None:
    """Have the main thread's `native_id` looked up when it is asked for, so that a fork need not set it."""
    import threading

    class _MainThread(threading._MainThread):  # type: ignore[name-defined,misc]  # keeps the name in reprs
        @property
        def native_id(self) -> int:
            return os.getpid()  # of a main thread it is the pid

    main_thread = threading.main_thread()
    if sys.platform == "linux" and type(main_thread) is threading._MainThread:  # type: ignore[attr-defined]
        main_thread.__class__ = _MainThread
