"""The imports a zygote makes before its first fork.

Runs in: the zygote.

Only one thing makes a module unfit: it starts a thread, because a forked process has the forking thread alone, and
whatever the others held stays locked for good. Unless the library sees to that itself: OpenBLAS (in numpy) ends its
threads before a fork, and starts them again when they are needed. So the zygote forks once, for nothing, and looks
whether the threads are gone. A thread cannot be taken back, so if they are not, the zygote starts itself anew
(`ThreadStarted`), without that module.
"""

from __future__ import annotations

import importlib
import os
import sys

from palpable._zygote.import_costs import installed_folders
from palpable._zygote.os_calls import SIGKILL, count_threads, fork
from palpable._zygote.strays import reap

REHEARSAL_SECONDS = 2.0


class ThreadStarted(Exception):
    """After importing `module`, this process has a second thread. `module` is "" if none that was asked for did."""

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.module = module


def preload(names: list[str], refused: dict[str, str]) -> list[str]:
    """Import `names` and return those that could be; add the others to `refused`, with the reason.

    Raises:
        ThreadStarted: this process is of no use any more.
    """
    if _has_lasting_threads():
        raise ThreadStarted("")
    preloaded = []
    for name in names:
        if name in refused:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:  # a module may do anything while it is imported, also call sys.exit
            refused[name] = f"{type(error).__qualname__}: {error}"
        else:
            preloaded.append(name)
        if _has_lasting_threads():
            raise ThreadStarted(name)
    return preloaded


def _has_lasting_threads() -> bool:
    """Whether there is a second thread, also after a fork."""
    if count_threads() == 1:
        return False
    pid = fork()
    if pid == 0:
        os._exit(0)
    if not reap(pid, REHEARSAL_SECONDS):  # the child waits for a lock that a thread held
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        return True
    return count_threads() > 1


def source_files(before: set[str]) -> dict[str, int]:
    """Return the files of modules loaded since `before` (the names in `sys.modules` then), with mtimes in ns.

    Without installed modules: those change only by installing, and are thousands.
    """
    folders = installed_folders()
    files = {}
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        if isinstance(path, str) and not path.startswith(folders):
            try:
                files[path] = os.stat(path).st_mtime_ns
            except OSError:
                continue
    return files
