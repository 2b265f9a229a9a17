"""What a zygote is told at its start: the first frame on its control socket."""

from __future__ import annotations

import msgspec


class ZygoteSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="zygote-settings"):
    """Sent once by the server, before anything else."""

    name: str
    """Spool files are named after it; unique among the zygotes of a server, past ones included."""
    spool_folder: str
    sys_path: list[str]
    """The server's own: what the server could import, a task can."""
    cwd: str
    files_max: int = 0
    """The soft limit on open files, for the zygote and its tasks; 0: the server's own."""
    preload: list[str] = []
    """Modules to import before the first fork."""
    refused: dict[str, str] = {}
    """Modules never to import, and why; a zygote that starts anew without a module tells itself so."""
