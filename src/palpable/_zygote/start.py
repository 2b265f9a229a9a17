"""How a zygote starts: it reads its settings, imports, and then forks for as long as its server is there.

Runs in: the zygote. Started by: `__main__`.

A zygote must have one thread. If a preloaded module has started another, it starts itself anew, without that module.
"""

from __future__ import annotations

import gc
import os
import sys
from _socket import socket  # without the enums of `socket`: cheaper
from importlib import import_module
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import NoReturn

from palpable._wire.framing import FrameReader, encode_frame
from palpable._wire.messages import ZygoteReady
from palpable._zygote import huge_pages, os_calls
from palpable._zygote.preloading import ThreadStarted, preload, source_files
from palpable._zygote.settings import ZygoteSettings
from palpable._zygote.zygote import Zygote

COMMON_IMPORTS = (
    "palpable.procedures.map_function",
    "palpable.procedures.run_function",
    "palpable._connection.connection",
    "palpable._connection.task_waits",
    "palpable.units.task",
    "palpable.units.task_calls",
    "palpable.units.task_result",
)
"""What tasks that submit sub-tasks need: 20 ms for each such task, or half a megabyte here, once."""


def main(control_fd: int, settings_fd: int) -> NoReturn:
    """Read the settings, import, then serve until the server is gone.

    Args:
        control_fd: the control socket.
        settings_fd: a file with the settings, left by a zygote that started itself anew; -1: they are the first frame
            on the control socket.
    """
    control = socket(fileno=control_fd)
    os.set_inheritable(control_fd, False)
    settings = _read_settings(control_fd if settings_fd < 0 else settings_fd)
    if settings_fd >= 0:
        os.close(settings_fd)
    if settings.files_max:
        setrlimit(RLIMIT_NOFILE, (settings.files_max, getrlimit(RLIMIT_NOFILE)[1]))
    sys.path[:] = settings.sys_path
    sys.argv = [""]
    os.chdir(settings.cwd)
    os_calls.become_subreaper()
    for name in COMMON_IMPORTS:
        import_module(name)
    before, own_fds = set(sys.modules), open_fds()
    gc.enable()  # how much garbage others make when they are imported, nobody knows
    if settings.preload:
        huge_pages.reserve_arenas(huge_pages.PRELOADED_ARENAS_BYTES)
    try:
        preloaded = preload(settings.preload, settings.refused)
    except ThreadStarted as error:
        _start_anew(control, settings, error.module)
    huge_pages.release_arenas()
    ready = ZygoteReady(
        pid=os.getpid(), preloaded=preloaded, refused=settings.refused, source_files=source_files(before)
    )
    Zygote(control, settings, keep_fds=open_fds() - own_fds).run(ready)


def _read_settings(fd: int) -> ZygoteSettings:
    """Read the first frame, and not a byte more: what follows on the control socket may be for a successor."""
    reader: FrameReader[ZygoteSettings] = FrameReader(ZygoteSettings)
    missing = 4
    frame = b""
    while missing:
        data = os.read(fd, missing)
        if not data:
            sys.exit("palpable: the zygote was given no settings")
        frame += data
        missing -= len(data)
        if len(frame) == 4:
            missing = int.from_bytes(frame, "little")
    return reader.feed(frame)[0]


def _start_anew(control: socket, settings: ZygoteSettings, module: str) -> NoReturn:
    """Replace this process by a new zygote that does not import `module`."""
    if not module:
        control.close()
        sys.exit(
            "palpable: something in this Python environment starts a thread at every start of the interpreter; "
            "no processes can be forked from it"
        )
    settings.refused[module] = "it starts a thread when it is imported"
    path = os.path.join(settings.spool_folder, f"{settings.name}.settings")
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    os.unlink(path)
    os.write(fd, encode_frame(settings))
    os.lseek(fd, 0, os.SEEK_SET)
    os.set_inheritable(fd, True)
    os.set_inheritable(control.fileno(), True)
    arguments = sys.orig_argv.copy()
    start = next(i for i, argument in enumerate(arguments) if argument.endswith("__main__.py"))
    arguments[start + 1 : start + 3] = [str(control.fileno()), str(fd)]
    os.execv(sys.executable, arguments)


def open_fds() -> set[int]:
    """Return the file descriptors open in this process, but for 0, 1 and 2."""
    listed = {int(name) for name in os.listdir("/dev/fd")} - {0, 1, 2}
    return set(filter(_is_open, listed))  # the one that was open to list them is not any more


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
