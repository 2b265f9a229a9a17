"""The few services of the operating system for which Python has no function, or none that is cheap enough.

Runs in: the zygote, the task process, and (`become_subreaper`) the server.

On Linux they are calls into libc through ctypes. Elsewhere each has a plain substitute or does nothing, as stated.
In a new task process every memory page written to for the first time costs about 4 us. A call through ctypes writes to
hardly any that the one before did not write to, while functions of `os` write to several each (their own
reference counts, and more). So what is called at birth is called this way: 25 pages less in all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import sysconfig
from collections.abc import Callable
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGKILL = int(signal.SIGKILL)
_IONBF = 2
RESERVED_BYTES = 64
_SIG_BLOCK, _SIG_UNBLOCK = 0, 1
_SFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC

IS_LINUX = sys.platform == "linux"
# PyDLL keeps the GIL, so that nothing is handed over around a fork.
_libc = ctypes.PyDLL(None, use_errno=True)
_prctl = _libc["prctl"] if IS_LINUX else None
_fork = _libc["fork"]
_sigprocmask = _libc["sigprocmask"]
_close_range = getattr(_libc, "close_range", None) if IS_LINUX else None

IS_FORK_BARE = IS_LINUX and not sysconfig.get_config_var("Py_GIL_DISABLED")
"""Whether `fork` runs no Python hook in parent and child; if not, it is `os.fork`, which runs all of them."""


def fork() -> int:
    """Fork this process, which must have one thread; return the child's pid, or 0 in the child.

    Where `IS_FORK_BARE`, this is libc's fork and nothing else: `os.fork` would also run the hooks of
    `os.register_at_fork` (see `fork_hooks`), make locks anew that a process with one thread cannot have left locked,
    and, since Python 3.12, read `/proc/self/stat` to warn of threads. That is 17 pages, and with the hooks of
    `threading` and `random` some 150. What the interpreter knows of its only thread stays true in the child: its
    identifier, its state and the lock it holds lie at the same addresses.

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


Call = tuple[Callable[..., object], tuple[object, ...]]
"""A function, and what to call it with."""


def calls_at_birth(gaps: list[range]) -> list[Call]:
    """Return the calls that make a new child of this process a process of its own, to be made in that order.

    It leads its own session and group, dies with this process (Linux), is the parent of every descendant whose own
    parent ends (Linux), and closes the file descriptors in `gaps`.
    """
    if _prctl is None or _close_range is None:
        calls: list[Call] = [(os.setsid, ())]
        if _prctl is not None:
            calls += [(_prctl, (PR_SET_PDEATHSIG, SIGKILL)), (_prctl, (PR_SET_CHILD_SUBREAPER, 1))]
        return calls + [(os.closerange, (gap.start, gap.stop)) for gap in gaps]
    # Made anew, to lie with the rest of what a child writes to (see `hot_memory`).
    setsid, prctl, close_range = _libc["setsid"], _libc["prctl"], _libc["close_range"]
    return [
        (setsid, ()),
        (prctl, (PR_SET_PDEATHSIG, SIGKILL)),
        (prctl, (PR_SET_CHILD_SUBREAPER, 1)),
        *((close_range, (gap.start, gap.stop - 1, 0)) for gap in gaps),
    ]


fork_or_minus_one: Callable[[], int] = _libc["fork"]
"""As `fork` where `IS_FORK_BARE`, but returns -1 if there is no room for a process."""
exit_now: Callable[[int], NoReturn] = _libc["_exit"]
"""As `os._exit`, likewise. That, when first called, has the dynamic linker look for the C function: 10 pages."""
dup2: Callable[[int, int], int] = _libc["dup2"]
"""As `os.dup2`, in a child that made `calls_at_birth`: cheaper there."""
getppid: Callable[[], int] = _libc["getppid"]
"""As `os.getppid`, likewise."""


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends. Linux only; elsewhere does nothing."""
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


class ChildSignal:
    """Makes the end of a child readable from a file descriptor, `fd`.

    On Linux SIGCHLD is blocked and read from a signalfd: the interpreter knows nothing of it, so there is nothing to
    undo in a child but the block. Elsewhere a handler writes to a pipe.
    """

    def __init__(self) -> None:
        self._mask = (ctypes.c_ulong * 16)()
        _libc.sigemptyset(self._mask)
        _libc.sigaddset(self._mask, int(signal.SIGCHLD))
        if IS_LINUX:
            _sigprocmask(_SIG_BLOCK, self._mask, None)
            self.fd: int = _libc.signalfd(-1, self._mask, _SFD_FLAGS)
            return
        self.fd, write_fd = os.pipe()
        for fd in (self.fd, write_fd):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def calls_at_birth(self) -> list[Call]:
        """Return the calls by which a child lets SIGCHLD be as it is in a new process."""
        if IS_LINUX:
            return [(_sigprocmask, (_SIG_UNBLOCK, self._mask, None))]
        return [(signal.set_wakeup_fd, (-1,)), (signal.signal, (signal.SIGCHLD, signal.SIG_DFL))]


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


def give_back_memory() -> None:
    """Give the system what C's allocator keeps in reserve, where that can be asked for."""
    if trim := getattr(_libc, "malloc_trim", None):
        trim(0)


def reserve_variable(name: bytes) -> Any:
    """Set an environment variable to `RESERVED_BYTES` spaces; return where they are, for a child to overwrite.

    To `setenv`, the GNU libc keeps every setting it ever made in a search tree, and writes to 8 memory pages; a child
    that writes to these bytes writes to one. To be done before anything else in the child changes its environment.
    """
    os.environb[name] = b" " * RESERVED_BYTES
    getenv = _libc["getenv"]
    getenv.restype = ctypes.c_void_p
    return ctypes.c_void_p(getenv(name))


def room_of(address: Any) -> memoryview:
    """Return the room of a reserved variable, to write to: half the time of `strcpy`, but more pages."""
    return memoryview((ctypes.c_char * (RESERVED_BYTES + 1)).from_address(address.value)).cast("B")


strcpy: Callable[[Any, bytes], int] = _libc["strcpy"]
getrandom: Any = getattr(_libc, "getrandom", None)
"""None where libc has no such function."""
enable_gc: Callable[[], int] = ctypes.pythonapi.PyGC_Enable
"""As `gc.enable`, likewise."""
