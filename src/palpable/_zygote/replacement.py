"""What the zygote tells the server when a task process has ended and another was forked in its place.

Runs in: the zygote (`Replacement`) and the server (`read_replacement`).

The zygote pays for each memory page it writes to after a fork, so the frame is made once: what the kernel tells of an
end (`waitid`, `wait4`) it writes into the frame itself, and the new process's number is put beside it. The frame is an
ordinary one, a `ProcessReplaced` whose record is its last field.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from palpable._wire.framing import encode_frame
from palpable._wire.messages import ProcessExit, ProcessReplaced
from palpable._zygote.usage_meter import RSS_UNIT_BYTES

_INT = 4
_SIGINFO_BYTES, _USAGE_BYTES = 128, 144
_USAGE_AT = _SIGINFO_BYTES
_INTS_AT = _USAGE_AT + _USAGE_BYTES
RECORD_BYTES = _INTS_AT + 4 * _INT
"""A `siginfo_t`; a `struct rusage`; then as ints the wait status, the strays killed, the new process, and nothing."""

_usage = struct.Struct("=5q")
_ints = struct.Struct("=3i")

FITS_HERE = (
    sys.platform == "linux"
    and ctypes.sizeof(ctypes.c_void_p) == 8
    and sys.byteorder == "little"
    and os.uname().machine in ("x86_64", "aarch64", "riscv64", "loongarch64", "ppc64le")
)
"""Whether the C structures and constants are as stated here and in `brief_turn`; tried on x86_64 alone."""


class Replacement:
    """The frame, and the places in it that are written to.

    Attributes:
        ints: the record as ints, to be read and written at `PID`, `STRAYS` and `NEW_PID`.
        siginfo, status, usage: where `waitid` and `wait4` are to write.
    """

    PID, STRAYS, NEW_PID = 4, _INTS_AT // _INT + 1, _INTS_AT // _INT + 2

    def __init__(self) -> None:
        self.frame = encode_frame(ProcessReplaced(record=bytes(RECORD_BYTES)))
        start = len(self.frame) - RECORD_BYTES
        self.address = ctypes.addressof((ctypes.c_char * len(self.frame)).from_buffer(self.frame))
        self.ints = memoryview(self.frame)[start:].cast("i")
        self.siginfo = ctypes.c_void_p(self.address + start)
        self.usage = ctypes.c_void_p(self.address + start + _USAGE_AT)
        self.status = ctypes.c_void_p(self.address + start + _INTS_AT)

    @property
    def record(self) -> bytes:
        return bytes(self.frame[-RECORD_BYTES:])


def read_replacement(record: bytes) -> tuple[ProcessExit, int]:
    """Return how the process ended, and the pid of the one in its place.

    Raises:
        struct.error: the record is too short.
    """
    (pid,) = struct.unpack_from("=i", record, Replacement.PID * _INT)
    user_seconds, user_us, system_seconds, system_us, peak = _usage.unpack_from(record, _USAGE_AT)
    status, strays, new_pid = _ints.unpack_from(record, _INTS_AT)
    cpu_seconds = user_seconds + system_seconds + (user_us + system_us) / 1_000_000
    return ProcessExit(pid, os.waitstatus_to_exitcode(status), cpu_seconds, peak * RSS_UNIT_BYTES, strays), new_pid
