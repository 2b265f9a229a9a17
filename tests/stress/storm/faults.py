"""The faults: each does its harm, notes what it did, and sees to it that the storm can go on.

Runs in: the storm. A fault notes `from` and `to`, the moments between which it struck.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from stress.storm.client_crew import ClientCrew
from stress.storm.event_log import EventLog
from stress.storm.server_keeper import ServerKeeper
from stress.storm.small_disk import SmallDisk
from support.cutting_proxy import CuttingProxy


class Theatre(NamedTuple):
    """Everything that can be harmed."""

    keeper: ServerKeeper
    crew: ClientCrew
    proxy: CuttingProxy
    disk: SmallDisk
    log: EventLog


class Fault(NamedTuple):
    """A fault.

    Attributes:
        strike: does it; returns what is to be noted of it, None if there was nothing to harm.
        weight: how often it comes, beside the others.
        is_kill: whether it counts as a kill.
    """

    strike: Callable[[Theatre, random.Random], dict[str, Any] | None]
    weight: int
    is_kill: bool


def kill_server(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """kill -9 the server, and start it again; sometimes kill that one at its start, too."""
    keeper = theatre.keeper
    process = keeper.process
    assert process is not None, "there is no server"
    process.send_signal(signal.SIGKILL)
    keeper.bury()
    time.sleep(rng.choice((0.0, 0.0, rng.uniform(0.0, 0.5))))
    pids = [process.pid]
    while rng.random() < 0.25:
        pid = keeper.start_and_kill(rng.uniform(0.0, 0.6))
        if pid is not None:
            pids.append(pid)
    keeper.start()
    return {"pids": pids}


def end_server(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """Tell the server to stop, once or twice, and start it again; sometimes kill it while it does."""
    signals = rng.choice((1, 1, 2))
    kill_after_seconds = rng.uniform(0.0, 0.8) if rng.random() < 0.25 else None
    process = theatre.keeper.process
    code, was_killed = theatre.keeper.end(signals, kill_after_seconds)
    theatre.keeper.start()
    return {"pids": [process.pid if process else 0], "signals": signals, "exit_code": code, "was_killed": was_killed}


def kill_zygote(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """kill -9 a zygote."""
    return _kill_one(theatre.keeper.zygotes(), rng)


def kill_task_process(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """kill -9 a task process, busy or idle."""
    return _kill_one(theatre.keeper.task_processes(), rng)


def kill_client(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """kill -9 a client; another one takes its place."""
    return {"client": theatre.crew.replace_one(rng)}


def stop_server_for_a_moment(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """SIGSTOP the server, and let it go on."""
    process = theatre.keeper.process
    assert process is not None, "there is no server"
    process.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.05, 0.8))
    process.send_signal(signal.SIGCONT)
    return {"pids": [process.pid]}


def cut_connections(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """For a moment, cut every connection in what passes next, in one direction, at any byte of it."""
    proxy, before = theatre.proxy, theatre.proxy.cuts
    way = rng.choice(("to_server", "to_client"))
    setattr(proxy, way, lambda data: rng.randrange(len(data) + 1))
    time.sleep(rng.uniform(0.05, 0.3))
    setattr(proxy, way, lambda data: None)
    return {"way": way, "cuts": proxy.cuts - before}


def fill_disk(theatre: Theatre, rng: random.Random) -> dict[str, Any] | None:
    """Leave no room, or next to none, on the disk of the store; sometimes kill the server then."""
    if theatre.disk.why_not:
        return None
    leave_bytes = rng.choice((0, 0, rng.randrange(1 << 20), rng.randrange(20 << 20)))
    theatre.disk.fill(leave_bytes)
    try:
        time.sleep(rng.uniform(0.1, 1.0))
        killed = []
        if rng.random() < 0.3:
            process = theatre.keeper.process
            assert process is not None, "there is no server"
            process.send_signal(signal.SIGKILL)
            theatre.keeper.bury()
            killed = [process.pid]
    finally:
        theatre.disk.empty()
    if killed:
        theatre.keeper.start()
    return {"leave_bytes": leave_bytes, "pids": killed}


FAULTS = {
    "kill server": Fault(kill_server, 26, True),
    "end server": Fault(end_server, 14, True),
    "kill zygote": Fault(kill_zygote, 14, True),
    "kill task process": Fault(kill_task_process, 24, True),
    "kill client": Fault(kill_client, 12, True),
    "stop server for a moment": Fault(stop_server_for_a_moment, 5, False),
    "cut connections": Fault(cut_connections, 8, False),
    "fill disk": Fault(fill_disk, 4, False),
}
SERVER_ENDS = frozenset({"kill server", "end server", "fill disk"})
"""Those by which the server may have ended, and with it every task process."""


def _kill_one(processes: list[Any], rng: random.Random) -> dict[str, Any] | None:
    if not processes:
        return None
    process = rng.choice(sorted(processes, key=lambda one: one.pid))
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself just now
        return None
    return {"pids": [process.pid]}
