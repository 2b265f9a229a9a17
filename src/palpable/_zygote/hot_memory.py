"""Keeps together in memory what a task process writes to, since it pays for each memory page it writes to first.

Runs in: the zygote, before the first fork.

A forked process shares all pages with the zygote until one of them writes to one: then that page is copied, for 3 to
4 us here, and a Python process writes wherever it looks, because it counts references. What a small task touches is
little, some 20 KB, but it was made at very different times, while modules were imported, and so lay on 190 pages. It
can't be moved; it can be made anew, or last, in memory where nothing else is: 90 pages.
"""

from __future__ import annotations

import ctypes
from types import FunctionType
from typing import Any

POOL_BYTES, POOL_HEAD_BYTES = 1 << 14, 48
MAX_FILLERS = 4000
LARGEST_SMALL_BYTES = 512
"""What Python's allocator calls small; it hands on what is larger to C's."""
HEAP_BYTES = range(16, 4096, 16)
LARGE_BYTES = 100_000
"""Larger than any hole in the heap, smaller than what C's allocator takes from the system as a block of its own."""

_malloc: Any = ctypes.PyDLL(None)["malloc"]
_malloc.restype = ctypes.c_void_p
_malloc.argtypes = (ctypes.c_size_t,)
_free: Any = ctypes.PyDLL(None)["free"]
_free.restype = None
_free.argtypes = (ctypes.c_void_p,)


def begin() -> None:
    """Have both allocators hand out fresh memory from now on, object after object.

    What is free between older objects is taken, and left for good: some 0.5 MB, which nobody writes to.
    """
    _open_fresh_pools()
    _fill_holes()


def _open_fresh_pools() -> None:
    """Have Python's allocator take small objects of every size from a pool that is nearly empty.

    A pool is 16 KB of blocks of one size; to allocate one writes to the head of the pool and to the block. In a fresh
    pool both are in one page, in one half full they are in two.
    """
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.restype = ctypes.c_void_p
    allocate.argtypes = (ctypes.c_size_t,)
    for size in range(16, LARGEST_SMALL_BYTES + 1, 16):
        for _ in range(MAX_FILLERS):
            address = allocate(size)  # never freed
            if address % POOL_BYTES == POOL_HEAD_BYTES and allocate(size) == address + size:
                break


def _fill_holes() -> None:
    """Have C's allocator take everything from the end of the heap."""
    end = _malloc(LARGE_BYTES)
    _free(end)
    for size in reversed(HEAP_BYTES):
        for _ in range(MAX_FILLERS):
            address = _malloc(size)  # never freed
            if address >= end:
                _free(address)
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
