"""What is looked for once the nemesis is done: tasks that never end, and everything that a server could leave behind.

Runs in: the storm.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from palpable import Client
from palpable._zygote.leftovers import SERVER_VARIABLE
from palpable.units.task_options import Isolation
from stress.storm.answers import answer_of_result
from stress.storm.behaviours import perform
from stress.storm.client_record import ClientRecord
from stress.storm.event_log import read_events
from stress.storm.job import Job
from stress.storm.server_keeper import ServerKeeper

UNFINISHED_STATES = ("scheduled", "ready", "running", "retrying")
END_SECONDS = 60.0
"""Without faults and clients, all that is left has ended within this time."""
ISOLATIONS: tuple[Isolation, ...] = ("task", "worker")
GONE_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.05
SPARE_DESCRIPTORS = 6
"""So many more than a fresh server may one hold that has served: idle processes that are forked ahead come and go."""
STORM_VARIABLE = "PALPABLE_STORM"
"""In the environment of everything that a storm starts."""


def wait_for_the_last(client: Client) -> Iterator[str]:
    """Wait until no task is unfinished; yield what to say of those that are."""
    deadline = time.monotonic() + END_SECONDS
    while left := client.tasks(UNFINISHED_STATES):
        if time.monotonic() > deadline:
            for task in left[:5]:
                yield f"task {task.task_id} is still {task.state}, attempt {task.attempt}, depth {task.depth}"
            return
        time.sleep(LOOK_AGAIN_SECONDS)


def ask_for_everything(client: Client, folder: Path) -> dict[str, int]:
    """Ask once more how each task ended that a client knows of; return the server's count of tasks by state."""
    record = ClientRecord(folder / "client-auditor.jsonl", "auditor")
    asked = {
        event["task_id"]: event["label"]
        for path in sorted(folder.glob("client-c*.jsonl"))
        for event in read_events(path)
        if event["event"] == "submitted"
    }
    for task_id, label in asked.items():
        since = time.monotonic()
        answer, value = answer_of_result(client.query_result(task_id, keep=True))
        record.told(label, task_id, "audit", since, answer, value)
    counts: dict[str, int] = client.get_status()["tasks"]
    return counts


def descriptors_of(pid: int) -> Counter[str]:
    """Return how many file descriptors of each kind a process holds."""
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        kinds[target.partition(":")[0] if ":" in target else target] += 1
    return kinds


def compare_with_a_fresh_server(keeper: ServerKeeper, folder: Path) -> Iterator[str]:
    """Start the server again, and yield what the old one held that the new one does not, after the same little work."""
    old, fresh = keeper.process, None
    assert old is not None
    _exercise(keeper, folder)
    held = _settled(old.pid)
    code, _ = keeper.end()
    if code != 0:
        yield f"a server without work, told to end, did so with exit code {code}"
    keeper.start(keeper.num_workers)
    fresh = keeper.process
    assert fresh is not None
    _exercise(keeper, folder)
    allowed = _settled(fresh.pid)
    if held.total() > allowed.total() + SPARE_DESCRIPTORS:
        yield f"a server holds {held.total()} file descriptors, a fresh one {allowed.total()}: {dict(held - allowed)}"


def _exercise(keeper: ServerKeeper, folder: Path) -> None:
    """Have a server run a little of everything, so that what it keeps for the next time is there."""
    with keeper.place.client((folder / "authkey").read_bytes()) as client:
        pid = client.get_status()["pid"]
        for isolation in ISOLATIONS:
            jobs = [Job(str(folder), f"exercise-{pid}-{isolation}-{number}", "quick") for number in range(40)]
            client.options(isolation=isolation).map(perform, jobs)


def _settled(pid: int) -> Counter[str]:
    """Return what a process holds when it has held the same for a while: connections that end are closed soon after."""
    held, since = descriptors_of(pid), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(LOOK_AGAIN_SECONDS)
        now = descriptors_of(pid)
        if now != held:
            held, since = now, time.monotonic()
    return held


def find_strays(marks: list[str]) -> Iterator[str]:
    """Yield the processes, this one excepted, that bear one of these marks, once they have had time to go."""
    deadline = time.monotonic() + GONE_SECONDS
    while (found := _marked(marks)) and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_SECONDS)
    for pid, words in found.items():
        yield f"process {pid}: {words}"


def _marked(marks: list[str]) -> dict[int, str]:
    wanted = {mark.encode() for mark in marks}
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if not wanted.isdisjoint(environment):
                found[int(entry)] = words[:120]
    return found


def find_files(temporary: Path, address: str | tuple[str, int]) -> Iterator[str]:
    """Yield the files that are left in the folder for temporary files, the socket, and shared memory of ours."""
    for path in sorted(temporary.rglob("*")):
        yield f"file {path.relative_to(temporary)} in the folder for temporary files"
    if isinstance(address, str) and os.path.lexists(address):
        yield "the socket of the server"
    for path in Path("/dev/shm").glob("palpable*"):
        yield f"shared memory {path.name}"


def server_mark(store_id: str) -> str:
    """Return what all processes of a server have in their environment."""
    return f"{SERVER_VARIABLE}={store_id}"
