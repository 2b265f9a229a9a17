"""How many files the server process may have open: each client is one.

Runs in: the server process.
"""

from __future__ import annotations

import resource

WANTED_FILES = 1 << 16


def allow_many_files() -> int:
    """Raise the soft limit on open files as far as the hard one lets us; return what it was.

    The usual 1024 are there for programs that use `select`, which can't do more. We do not; tasks may, so they get back
    the limit that was.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft
