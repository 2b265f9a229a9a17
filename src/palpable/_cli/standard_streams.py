"""The standard streams of a command that was started without some of them: by `<&-` in a shell, by a supervisor."""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Open what is closed of the file descriptors 0, 1 and 2 on the null device, and make the streams Python left out.

    Else the next socket has the number of the input, which would be read from it, or that of an output.
    """
    # The lowest free number is given first.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115 - lasts as long as the process
