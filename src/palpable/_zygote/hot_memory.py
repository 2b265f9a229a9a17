"""Keeps together in memory what a task process writes to, since it pays for each memory page it writes to first.

Runs in: the zygote, before the first fork.

A forked process shares all pages with the zygote until one of them writes to one: then that page is copied, for 3 to
4 us here, and a Python process writes wherever it looks, because it counts references. What a small task touches is
little, some 20 KB, but it was made at very different times, while modules were imported, and so lay on 190 pages. It
can't be moved. But it can be less (`brief_life`), and much of it can be made last, in memory where nothing else is:
that leaves 115 pages. `docs/decisions/0010-the-cost-of-a-fork.md` has all that was measured.
"""

from __future__ import annotations

import ctypes
from types import FunctionType
from typing import Any

POOL_BYTES, POOL_HEAD_BYTES = 1 << 14, 48
MAX_FILLERS = 4000
LARGEST_SMALL_BYTES = 512
"""What Python's allocator calls small; it hands on what is larger to C's."""


def begin() -> None:
    """Have Python's allocator take small objects of every size from a pool that is nearly empty, from now on.

    A pool is 16 KB of blocks of one size; to allocate one writes to the head of the pool and to the block. In a fresh
    pool both are in one page, in one half full they are in two; and what is allocated next lies in that page too. What
    is free in older pools is taken and left for good, some 0.3 MB. Without this a task writes to 30 pages more.
    """
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.restype = ctypes.c_void_p
    allocate.argtypes = (ctypes.c_size_t,)
    for size in range(16, LARGEST_SMALL_BYTES + 1, 16):
        for _ in range(MAX_FILLERS):
            address = allocate(size)  # never freed
            if address % POOL_BYTES == POOL_HEAD_BYTES and allocate(size) == address + size:
                break


def copy_of(function: Any) -> Any:
    """Return the same function anew, with its code: the interpreter writes to both at every call."""
    copied = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
