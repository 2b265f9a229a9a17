"""Makes one mapping of several that a shared library consists of, so that a fork has fewer to copy.

Runs in: the zygote, before the first fork.

A shared library is mapped in five parts, by what may be done there: its header is to be read, its code to be read and
executed, its constants to be read; what was filled in when it was loaded is to be read, and its variables to be written
to. A fork copies each part, and the end of the child takes each down again, 2 to 8 us together: the kernel keeps
lists for them, and all who fork wait for each other there. With numpy and pandas a zygote has 600 parts, and more than
half of the time of a fork goes to them. The kernel joins neighbours by itself once they may be used in the same way. So
what is only read may also be executed here, and what was filled in may be written to: five parts become two.

What is given up: with some libraries, tables of functions are kept from being overwritten by an error in C code. Here
they are not, as with libraries that were linked without that, which most extension modules are. The C library, the
dynamic linker and the interpreter itself stay as they are: profilers find the interpreter by its parts.
`docs/decisions/0025-fewer-mappings.md` has the figures.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from palpable._zygote.huge_pages import PAGE_BYTES
from palpable._zygote.memory_map import Mapping, read_mappings

_READ, _WRITE, _EXECUTE = 1, 2, 4
_LOAD, _RELRO = 1, 0x6474E552
_WRITABLE = 2
_AT_BASE, _AT_ENTRY = 7, 9

_IDENT = b"\x7fELF\x02\x01"
"""How a file for 64 bits begins, with the low byte first."""
_header = struct.Struct("<32xQ14xHH")
"""Of it: where the table of segments is, the size of an entry, and how many there are."""
_segment = struct.Struct("<IIQQQQQQ")
"""An entry: kind, rights, offset, address, another address, size in the file, size in memory, alignment."""


class _Segments(NamedTuple):
    """The ranges of a library in memory that are to be joined with their neighbours."""

    read: list[range]
    """Code and constants."""
    filled: list[range]
    """Written to when it was loaded, and not since."""


def join() -> int:
    """Join what can be joined; return how many mappings were changed. To be called when all libraries are loaded."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return 0
    mprotect = ctypes.PyDLL(None)["mprotect"]
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    count = 0
    with suppress(OSError):  # elsewhere there is no /proc
        for mapping, rights in to_change(read_mappings(), _own_addresses()):
            # If not, it stays as it is.
            count += mprotect(mapping.start, mapping.end - mapping.start, rights) == 0
    return count


def to_change(mappings: list[Mapping], kept: list[int]) -> Iterator[tuple[Mapping, int]]:
    """Yield each mapping that could be joined with a neighbour, with the rights it needs for that.

    Args:
        mappings: all of this process, in order.
        kept: a library that one of these addresses is in stays as it is.
    """
    libraries: dict[str, list[Mapping]] = {}
    for mapping in mappings:
        if mapping.name.startswith("/"):
            libraries.setdefault(mapping.name, []).append(mapping)
    for parts in libraries.values():
        if not any("x" in part.rights for part in parts):
            continue
        if any(part.start <= address < part.end for part in parts for address in kept):
            continue
        first = parts[0]
        if first.offset or first.rights[0] != "r":
            continue
        segments = _read_segments(first.start, first.end - first.start)
        for part in parts:
            if part.rights != "r--p":
                continue
            if any(part.start in segment for segment in segments.filled):
                yield part, _READ | _WRITE
            elif any(part.start in segment for segment in segments.read):
                yield part, _READ | _EXECUTE


def _read_segments(start: int, size: int) -> _Segments:
    """Return the segments of a library whose file is mapped there from its beginning; none if it is not what it seems.

    Args:
        size: of that mapping.
    """
    read: list[range] = []
    filled: list[range] = []
    header = ctypes.string_at(start, min(size, PAGE_BYTES))
    if not header.startswith(_IDENT):
        return _Segments(read, filled)
    table_at, entry_size, count = _header.unpack_from(header)
    if entry_size != _segment.size or table_at + count * entry_size > len(header):
        return _Segments(read, filled)
    entries = [_segment.unpack_from(header, table_at + index * entry_size) for index in range(count)]
    bases = [address for kind, _, offset, address, *_ in entries if kind == _LOAD and offset == 0]
    if not bases:
        return _Segments(read, filled)
    for kind, rights, _, address, _, _, memory_size, _ in entries:
        begin = (start + address - bases[0]) // PAGE_BYTES * PAGE_BYTES
        segment = range(begin, start + address - bases[0] + memory_size)
        if kind == _RELRO:
            filled.append(segment)
        elif kind == _LOAD and not rights & _WRITABLE:
            read.append(segment)
    return _Segments(read, filled)


def _own_addresses() -> list[int]:
    """Return an address in each of the program, the interpreter, the C library and the dynamic linker."""
    getauxval = ctypes.PyDLL(None)["getauxval"]
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    functions = ctypes.pythonapi.PyObject_Malloc, ctypes.PyDLL(None)["getpid"]
    addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]
    return [*addresses, getauxval(_AT_ENTRY), getauxval(_AT_BASE)]
