"""The few services of the operating system for which Python has no function, or none that is cheap enough.

Runs in: the zygote, the task process, and (`become_subreaper`) the server.

On Linux they are calls into libc through ctypes. Elsewhere each has a plain substitute or does nothing, as stated.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGKILL = 9
_IONBF = 2

IS_LINUX = sys.platform == "linux"
_libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL: keeps the GIL, so nothing is handed over around a fork
_prctl = None
if IS_LINUX:
    _prctl = _libc.prctl
    _prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)

IS_FORK_BARE = IS_LINUX and not sysconfig.get_config_var("Py_GIL_DISABLED")
"""Whether `fork` runs no Python hook in parent and child; if not, it is `os.fork`, which runs all of them."""

_fork = _libc.fork


def fork() -> int:
    """Fork this process, which must have one thread; return the child's pid, or 0 in the child.

    Where `IS_FORK_BARE`, this is libc's fork and nothing else: `os.fork` would also run the hooks of
    `os.register_at_fork` (see `fork_hooks`), make locks anew that a process with one thread cannot have left locked,
    and, since Python 3.12, read `/proc/self/stat` to warn of threads. In the child, each memory page that is written
    to costs about 4 us, and what is left out here writes to some 150 of them. What the interpreter knows of its only
    thread stays true in the child: its identifier, its state and the lock it holds lie at the same addresses.

    Raises:
        OSError: the process or memory limit is reached.
    """
    if not IS_FORK_BARE:
        return os.fork()
    pid: int = _fork()
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def die_with_parent() -> None:
    """Have the kernel send SIGKILL to this process when its parent ends. Linux only; elsewhere does nothing."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, SIGKILL)


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends. Linux only; elsewhere does nothing."""
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def unbuffer_c_stdout() -> None:
    """Have C's `stdout` write at once, so that a process can end by `os._exit`, or crash, and lose nothing."""
    try:
        stdout = ctypes.c_void_p.in_dll(_libc, "stdout" if IS_LINUX else "__stdoutp")
    except ValueError:
        return
    _libc.setvbuf(stdout, None, _IONBF, ctypes.c_size_t(0))


def count_threads() -> int:
    """Return how many threads this process has; those that Python knows, where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        import threading

        return threading.active_count()
