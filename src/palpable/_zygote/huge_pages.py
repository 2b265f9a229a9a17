"""Puts the zygote's memory on huge pages, so that a fork copies a few entries in place of thousands.

Runs in: the zygote, before the first fork.

A fork copies an entry of the page table for every page that was ever written to, and the end of the child removes it
again: together 0.14 us for each 4 KB here, and a zygote has 3,000 of them. For what lies on one huge page the kernel
does all of that in one go, also after some of its 512 parts were written to and so replaced. The writes themselves cost
what they did: only the part that is written to is copied.

`MADV_COLLAPSE` (Linux 6.1) moves what is there to huge pages, whatever the system's setting for transparent huge pages,
but only ranges that begin and end on a multiple of 2 MB. Python's allocator takes memory in arenas of 1 MB, wherever
there is room; so it is made to take its first ones from one range that begins where it should.

Where the kernel can't do this, nothing is changed. `docs/decisions/0014-the-price-of-a-call.md` has the figures.
"""

from __future__ import annotations

import ctypes
import io
import resource
import sys
from contextlib import suppress

from palpable._zygote.memory_map import read_mappings

HUGE_PAGE_BYTES = 1 << 21
PAGE_BYTES = resource.getpagesize()
MIN_PAGES = HUGE_PAGE_BYTES // PAGE_BYTES * 3 // 4
"""So many small pages must be there to be worth a huge one, which takes its 2 MB whatever is on it."""
ARENA_BYTES = 1 << 20
OWN_ARENAS_BYTES, PRELOADED_ARENAS_BYTES = 4 << 20, 32 << 20
"""What is reserved before the zygote's own imports, and before those it is told to make."""
_BLOCK_BYTES = 440
"""A bytes object of that length is about the largest that Python's allocator keeps in its arenas."""
_PROT_NONE, _MAP_PRIVATE_ANONYMOUS = 0, 0x22
_MADV_COLLAPSE = 25
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.PyDLL(None)
_reserved: list[bytes] = []


def reserve_arenas(size: int) -> None:
    """Have Python's allocator take its next arenas from one aligned range of that size. To be called before imports.

    `release_arenas` gives back what was not needed.
    """
    if sys.platform != "linux":
        return
    _align_next_mapping()
    blocks = [bytes(_BLOCK_BYTES) for _ in range(size // _BLOCK_BYTES)]
    # An arena in which one block is in use stays; all others are free again for what comes.
    _reserved.extend({id(block) // ARENA_BYTES: block for block in blocks}.values())


def release_arenas() -> None:
    """Give back the arenas on which nothing came to lie. To be called after the imports."""
    _reserved.clear()


def _align_next_mapping() -> None:
    """Fill the room above the next multiple of 2 MB, where the kernel would put the next mapping, with nothing."""
    mmap, munmap = _libc["mmap"], _libc["munmap"]
    mmap.restype = ctypes.c_void_p
    mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    address = mmap(None, ARENA_BYTES, _PROT_NONE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if address == _MAP_FAILED:
        return
    munmap(address, ARENA_BYTES)
    if too_many := (address + ARENA_BYTES) % HUGE_PAGE_BYTES:
        mmap(None, too_many, _PROT_NONE, _MAP_PRIVATE_ANONYMOUS, -1, 0)


def move_there() -> None:
    """Move to huge pages whatever of this process' own memory can be. To be called when all is made."""
    madvise = _libc["madvise"]
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with suppress(OSError), open("/proc/self/pagemap", "rb", buffering=0) as pagemap:  # elsewhere there is no /proc
        for start, end in _own_memory():
            for address in range(-(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, end, HUGE_PAGE_BYTES):
                if address + HUGE_PAGE_BYTES <= end and count_pages(pagemap, address) >= MIN_PAGES:
                    madvise(address, HUGE_PAGE_BYTES, _MADV_COLLAPSE)  # if not, the pages stay as they are


def count_pages(pagemap: io.FileIO, address: int) -> int:
    """Return how many of the pages in the place of a huge one are there."""
    pagemap.seek(address // PAGE_BYTES * 8)
    entries = memoryview(pagemap.read(HUGE_PAGE_BYTES // PAGE_BYTES * 8)).cast("Q")
    return sum([entry >> 63 for entry in entries])


def _own_memory() -> list[tuple[int, int]]:
    """Return where the heaps are: memory that can be written to and belongs to no file."""
    return [
        (mapping.start, mapping.end)
        for mapping in read_mappings()
        if mapping.rights == "rw-p" and mapping.name.strip() in ("", "[heap]")
    ]
