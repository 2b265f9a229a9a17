"""What is mapped where in this process, as the kernel lists it.

Runs in: the zygote.
"""

from __future__ import annotations

from typing import NamedTuple


class Mapping(NamedTuple):
    """A stretch of addresses of one kind.

    Attributes:
        start, end: the first address, and the first one behind it.
        rights: as "r-xp": read, write, execute, private.
        offset: where in the file it begins, in bytes.
        name: the path of the file, "[heap]" and the like, or "".
    """

    start: int
    end: int
    rights: str
    offset: int
    name: str


def read_mappings() -> list[Mapping]:
    """Return all mappings of this process, in order of their addresses.

    Raises:
        OSError: there is no /proc here.
    """
    mappings = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            start, _, end = fields[0].partition("-")
            name = fields[5] if len(fields) > 5 else ""
            mappings.append(Mapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), name))
    return mappings
