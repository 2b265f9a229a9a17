"""Puts a part of the interpreter's program code on huge pages, so that a task process need not map it page by page.

Runs in: the zygote, before the first fork.

Of program code a fork copies nothing: the child asks the kernel for it again, 64 KB at a time, 3 us each, and at its
end all that it had mapped is taken apart page by page. On a huge page it is one entry, which a fork copies. The kernel
does not do that for files, unless it was built so. So the code is copied to memory of this process, which is moved to
a huge page and put in the place of the file's. Both hold the same bytes, so whatever runs there meanwhile runs on.

Only 2 MB at a time can be moved, from one multiple of 2 MB to the next, and what holds the beginning of the code stays
where it is: profilers such as py-spy find the interpreter by that. What is moved has no name any more for profilers of
C code that go by the names of mapped files (`perf`).

Where the system does not allow it (memory that was written to must not be executed, under some policies) or cannot do
it, nothing is changed. `docs/decisions/0014-the-price-of-a-call.md` has the figures.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

from palpable._zygote.huge_pages import HUGE_PAGE_BYTES, MIN_PAGES, count_pages
from palpable._zygote.memory_map import Mapping, read_mappings

_READ, _WRITE, _EXECUTE = 1, 2, 4
_MAP_PRIVATE_ANONYMOUS = 0x22
_MREMAP_MAYMOVE_FIXED = 3
_MADV_COLLAPSE = 25
_FAILED = ctypes.c_void_p(-1).value


def move_there() -> list[int]:
    """Move what can be moved of the code; return where that is. To be called when all else is made."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return []
    moved = []
    with suppress(OSError), open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for address in movable(read_mappings(), _address_of_code()):
            if count_pages(pagemap, address) >= MIN_PAGES and _move(address):
                moved.append(address)
    return moved


def movable(mappings: list[Mapping], code: int) -> list[int]:
    """Return the starts of the huge pages that lie wholly in what cannot be written to of the file that `code` is in.

    Args:
        mappings: all of this process, in order.
        code: an address in the code of the interpreter.
    """
    name = next((mapping.name for mapping in mappings if mapping.start <= code < mapping.end), "")
    if not name.startswith("/"):
        return []
    first = next(mapping for mapping in mappings if mapping.name == name and "x" in mapping.rights)
    end = first.end
    for mapping in mappings:
        if mapping.start == end and mapping.name == name and mapping.rights in ("r--p", "r-xp"):
            end = mapping.end
    start = first.start // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES + HUGE_PAGE_BYTES
    return list(range(start, end - HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES))


def _address_of_code() -> int:
    return ctypes.cast(ctypes.pythonapi.PyObject_Malloc, ctypes.c_void_p).value or 0


def _move(address: int) -> bool:
    """Put a huge page in the place of the one that begins at `address`, with the same bytes; return whether it is."""
    libc = ctypes.PyDLL(None)
    mmap, munmap, mprotect, mremap, madvise = (
        libc[name] for name in ("mmap", "munmap", "mprotect", "mremap", "madvise")
    )
    mmap.restype = mremap.restype = ctypes.c_void_p
    mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    mprotect.argtypes = madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)

    size = HUGE_PAGE_BYTES
    room = mmap(None, 2 * size, _READ | _WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if room == _FAILED:
        return False
    copy = -(-room // size) * size
    ctypes.memmove(copy, address, size)
    is_moved = (
        madvise(copy, size, _MADV_COLLAPSE) == 0
        and mprotect(copy, size, _READ | _EXECUTE) == 0
        # One system call takes the old mapping away and puts the copy there.
        and bool(mremap(copy, size, size, _MREMAP_MAYMOVE_FIXED, address) == address)
    )
    if copy > room:
        munmap(room, copy - room)
    behind = copy + size
    if not is_moved:
        munmap(copy, size)
    if behind < room + 2 * size:
        munmap(behind, room + 2 * size - behind)
    return is_moved
