"""The common turn of the zygote, in as few memory pages as possible: a task process has ended, another one is forked.

Runs in: the zygote. Whatever is not the common case goes to `Zygote`.

While a child lives the zygote shares its memory with it, so each memory page that it writes to is copied, for some 4 us
(see `hot_memory`), and after the next fork copied again. This turn in ordinary methods wrote to a hundred. So it is one
function, made last, with all that it uses in its closure; it calls libc through ctypes, which writes to hardly any page
that the call before did not write to; and the kernel writes what it has to say into the frame for the server.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NoReturn

from palpable._zygote import os_calls
from palpable._zygote.replacement import FITS_HERE, Replacement

if TYPE_CHECKING:
    from collections.abc import Callable

    from palpable._zygote.books import Books

_AF_UNIX, _SOCK_STREAM_CLOEXEC = 1, 0o2000001
_SOL_SOCKET, _SCM_RIGHTS = 1, 1
_POLLIN = 1
_P_ALL = 0
_WEXITED_NOHANG_NOWAIT = 4 | 1 | 0x01000000
_SIGNAL_BYTES = 128
_CHILDREN_BYTES = 4096
_PART_BYTES = 2048
_LONG_MILLISECONDS = (1 << 31) - 1
"""24 days. For a negative number, which means for ever, ctypes raises and catches an exception."""

CAN_BE_BRIEF = FITS_HERE and os_calls.IS_FORK_BARE


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


def make_turn(
    books: Books,
    control_fd: int,
    signal_fd: int,
    children_fd: int,
    fork_process: Callable[[Any, tuple[str, int]], int],
    *,
    kill_strays: Callable[[int], int],
    on_not_forked: Callable[[bytes, Any], None],
    send_rest: Callable[[bytearray, int], None],
) -> Callable[[], bool]:
    """Return the turn: it waits and does what is to be done. It returns False if there is more to do than it can.

    Then nothing that it left undone is lost: the control socket is unread, and what has ended can still be waited for.

    Args:
        books: the zygote's.
        control_fd: the control socket.
        signal_fd: readable after a child has ended.
        children_fd: of the file that lists this process's children.
        fork_process: of `make_forker`.
        kill_strays: given who has ended, kills and reaps every child that is in no book; returns how many.
        on_not_forked: called when a process has ended and no other could be forked, with the record of its end and its
            spool file.
        send_rest: called with the frame and how much of it was sent, when that was not all.
    """
    libc = ctypes.PyDLL(None, use_errno=True)
    poll, read, pread, waitid, wait4, waitpid = (
        libc[name] for name in ("poll", "read", "pread", "waitid", "wait4", "waitpid")
    )
    socketpair, sendmsg, close = (libc[name] for name in ("socketpair", "sendmsg", "close"))
    alive, kill_at = books.alive, books.kill_at

    def place(size: int) -> tuple[bytearray, Any]:
        memory = bytearray(size)
        return memory, ctypes.c_void_p(ctypes.addressof((ctypes.c_char * size).from_buffer(memory)))

    replacement = Replacement()
    frame, ints = replacement.frame, replacement.ints
    siginfo, status, usage = replacement.siginfo, replacement.status, replacement.usage
    pid_at, strays_at, new_pid_at = replacement.PID, replacement.STRAYS, replacement.NEW_PID
    frame_size = len(frame)

    polled, polled_address = place(16)
    words = memoryview(polled).cast("i")
    words[0], words[2] = control_fd, signal_fd
    events = memoryview(polled).cast("h")
    events[2] = events[6] = _POLLIN

    # A control message with one descriptor in room for two: the second is the child's, and not sent.
    rights, rights_address = place(24)
    rights[:16] = (20).to_bytes(8, "little") + _SOL_SOCKET.to_bytes(4, "little") + _SCM_RIGHTS.to_bytes(4, "little")
    ends = memoryview(rights).cast("i")
    ends_address = ctypes.c_void_p(rights_address.value + 16)
    vector = _IoVector(replacement.address, frame_size)
    header = _MessageHeader(None, 0, ctypes.addressof(vector), 1, rights_address, 24, 0)
    header_address = ctypes.c_void_p(ctypes.addressof(header))

    _signals, signals_address = place(_SIGNAL_BYTES)
    children, children_address = place(_CHILDREN_BYTES)
    count_spaces = children.count

    def turn(_kept: Any = (vector, header, replacement, _signals)) -> bool:
        if len(alive) != books.count or kill_at or books.fork_again_at:
            return False
        if poll(polled_address, 2, _LONG_MILLISECONDS) <= 0:
            return True
        if events[3]:
            return False
        read(signal_fd, signals_address, _SIGNAL_BYTES)
        while True:
            ints[pid_at] = 0
            if waitid(_P_ALL, 0, siginfo, _WEXITED_NOHANG_NOWAIT) or not ints[pid_at]:
                return True
            pid = ints[pid_at]
            if pid not in alive:  # a stray that could not be killed in time, and has ended now
                waitpid(pid, None, 0)
                continue
            # What it had started has come to be a child of this process before it was a zombie.
            size = pread(children_fd, children_address, _CHILDREN_BYTES, 0)
            # The kernel lists half a page at least, if there is as much; then this may not be all.
            is_more = size >= _PART_BYTES or count_spaces(b" ", 0, size) > len(alive)
            ints[strays_at] = kill_strays(pid) if is_more else 0
            wait4(pid, status, 0, usage)
            spool = alive.pop(pid)
            if socketpair(_AF_UNIX, _SOCK_STREAM_CLOEXEC, 0, ends_address):
                on_not_forked(replacement.record, spool)
                return True
            child = fork_process(ends, spool)
            if child < 0:
                close(ends[4])
                close(ends[5])
                on_not_forked(replacement.record, spool)
                return True
            alive[child] = spool
            ints[new_pid_at] = child
            sent = sendmsg(control_fd, header_address, 0)
            close(ends[4])
            close(ends[5])
            if sent != frame_size:
                send_rest(frame, sent)
            # While processes end as fast as they are forked, this loop has no end; an order may not wait for that.
            if poll(polled_address, 1, 0):
                return False

    return turn


def make_forker(
    fork: Callable[[], int], live: Callable[[int, int], NoReturn], on_failed: Callable[[BaseException], NoReturn]
) -> Callable[[Any, tuple[str, int]], int]:
    """Return what forks, given both ends of a socket pair and a spool file. It returns as `fork` does, or never."""

    def fork_process(ends: Any, spool: tuple[str, int]) -> int:
        if child := fork():
            return child
        try:
            live(ends[5], spool[1])
        except BaseException as error:
            on_failed(error)

    return fork_process
