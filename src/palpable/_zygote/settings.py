"""What a zygote is told at its start: the first frame on its control socket."""

from __future__ import annotations

import msgspec

from palpable._wire.messages import Message


class ZygoteSettings(Message, tag="zygote-settings"):
    """Sent once by the server, before anything else."""

    name: str
    """Spool files are named after it; unique among the zygotes of a server, past ones included."""
    spool_folder: str
    sys_path: list[str]
    """The server's own: what the server could import, a task can."""
    cwd: str
    preload: list[str] = msgspec.field(default_factory=list)
    """Modules to import before the first fork."""
    refused: dict[str, str] = msgspec.field(default_factory=dict)
    """Modules never to import, and why; a zygote that starts anew without a module tells itself so."""
