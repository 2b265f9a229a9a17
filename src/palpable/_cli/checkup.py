"""What `palpable doctor` looks at: the surroundings of a server, and tasks sent through it from end to end."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

import palpable
from palpable._cli.quantities import size
from palpable._cli.server_options import ServerChoice
from palpable.units.task_exceptions import PalpableError

if TYPE_CHECKING:
    from palpable._wire.messages import Report
    from palpable.units.client import Client, ClientView

PATIENCE_SECONDS = 20.0
"""A canary takes milliseconds. So long it may wait for a worker."""
LITTLE_DISK_BYTES = 1_000_000_000
NO_DISK_BYTES = 50_000_000
FILES_PER_WORKER = 8
FILES_BESIDES = 128


class Check(NamedTuple):
    """What was looked at, and what was found.

    Attributes:
        state: "skipped" if it could not be looked at from here.
        advice: what to do, if it is not well.
    """

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    found: str
    advice: str = ""


def surroundings(server: ServerChoice) -> Iterator[Check]:
    """Look at what a server needs of this machine: folder, key, open files."""
    yield from _look_at_folder(server)
    yield _look_at_key(server)


def _look_at_folder(server: ServerChoice) -> Iterator[Check]:
    from palpable._connection.address import default_address, runtime_folder

    try:
        where = server.address()
        if where != default_address():
            return
        folder = runtime_folder()
    except (PalpableError, ValueError) as error:
        yield Check("runtime folder", "failed", str(error), "Do as it says, or name the server by --url.")
        return
    if not folder.exists():
        advice = "Start a server with `palpable serve`: it makes the folder."
        yield Check("runtime folder", "failed", f"there is no folder {folder}", advice)
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        yield Check("runtime folder", "warning", f"{folder} has mode {mode:o}", f"Run: chmod 700 {folder}")
    else:
        yield Check("runtime folder", "ok", f"{folder}, mode {mode:o}")


def _look_at_key(server: ServerChoice) -> Check:
    advice = "Use the key file that `palpable serve` made beside its socket, or name it with --authkey-file."
    try:
        where = server.address()
        if where.path and not os.path.exists(where.path):
            return Check("key", "skipped", "there is no server")
        server.authkey(where)
    except (PalpableError, OSError, ValueError, click.ClickException) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return Check("key", "failed", said, advice)
    return Check("key", "ok", "found, and nobody else can read its file")


def connection_check(server: ServerChoice, client: Client) -> Iterator[Check]:
    """Look at the server that answers: its version, what it says of itself, and what it has left."""
    info = dict(client._get_connection().info)
    yield Check("connection", "ok", f"{server.address()}, pid {info.get('pid')}, both sides hold the key")
    theirs = str(info.get("version"))
    if theirs == palpable.__version__:
        yield Check("version", "ok", theirs)
    else:
        found = f"the server is {theirs}, this is {palpable.__version__}"
        yield Check("version", "warning", found, "Install the same version on both sides, and start the server again.")
    status = client.get_status()
    yield _look_at_status(status)
    is_here = bool(server.address().path)
    yield (
        _look_at_open_files(status) if is_here else Check("open files", "skipped", "the server is not on a socket here")
    )
    yield from _look_at_disks(status) if is_here else iter(())


def _look_at_status(status: dict[str, Any]) -> Check:
    busy = sum(worker["is_busy"] for worker in status["worker_status"])
    found = f"{busy} of {status['num_workers']} workers busy, {status['task_queue_size']} tasks queued"
    store = status["store"]
    if store is not None and store["is_full"]:
        return Check("server", "failed", "the disk of its store is full", f"Make room where {store['path']} is.")
    if status["is_draining"]:
        return Check("server", "failed", "it drains: nothing new is accepted", "Run: palpable drain --off")
    if status["not_preloaded"]:
        names = ", ".join(status["not_preloaded"])
        return Check("server", "warning", f"{found}; not preloaded: {names}", "See `palpable status` for the reasons.")
    return Check("server", "ok", found)


def _look_at_open_files(status: dict[str, Any]) -> Check:
    needed = FILES_BESIDES + FILES_PER_WORKER * status["num_workers"]
    try:
        with open(f"/proc/{status['pid']}/limits") as file:
            line = next(line for line in file if line.startswith("Max open files"))
        text = line.split()[3]
    except (OSError, StopIteration):
        return Check("open files", "skipped", "the server's limits can't be seen from here")
    if text != "unlimited" and int(text) < needed:
        found = f"the server may open {text} files; {status['num_workers']} workers and their clients take {needed}"
        return Check("open files", "warning", found, "Start it after `ulimit -n 4096`, or with fewer workers.")
    return Check("open files", "ok", f"the server may open {text}")


def _look_at_disks(status: dict[str, Any]) -> Iterator[Check]:
    places = {"disk of log files": tempfile.gettempdir()}
    if status["store"] is not None:
        places["disk of the store"] = os.path.dirname(status["store"]["path"])
    for name, folder in places.items():
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Check(name, "skipped", f"{folder}: {error.strerror}")
            continue
        found = f"{size(free)} free in {folder}"
        if free < LITTLE_DISK_BYTES:
            advice = f"Make room in {folder}: what tasks print and return is written there."
            yield Check(name, "failed" if free < NO_DISK_BYTES else "warning", found, advice)
        else:
            yield Check(name, "ok", found)


# --- canaries -----------------------------------------------------------------------------------------------------


def canary_checks(client: Client, *, is_here: bool) -> Iterator[Check]:
    """Send canaries: does a task run, in a process born clean, is its output kept, its result right, its tree ended?

    Args:
        is_here: processes of the server can be seen from here.
    """
    from palpable._cli.canary import sing

    view = client.options(isolation="task", priority=1_000_000, timeout_seconds=600, tags=("doctor",), name="canary")
    text = f"canary {os.urandom(4).hex()}"
    first = _sent(view, sing, text)
    if isinstance(first, Check):
        yield first
        return
    task_id, report = first
    said = _result(report)
    if said is None or said.get("text") != text:
        yield Check("result", "failed", "it is not what the task returned", "This is a bug: please report it.")
        return
    yield Check("task", "ok", f"ran in pid {said['pid']} with Python {said['python']}, and its result came back")
    second = _sent(view, sing, text)
    other = None if isinstance(second, Check) else _result(second[1])
    if other is not None and said["visits"] == other["visits"] == 1 and said["pid"] != other["pid"]:
        yield Check("fresh process", "ok", "the next task ran in another process, born clean")
    else:
        yield Check("fresh process", "failed", "the next task saw what the first had left", "Please report it.")
    output = client.logs(task_id)
    if output == f"{text}\n":
        yield Check("output", "ok", "what the task printed is kept")
    else:
        advice = "Is the disk of the server's log files full? Else, please report it."
        yield Check("output", "failed", f"the task printed a line, kept is {output!r}", advice)
    yield _check_cancel(client, view, is_here=is_here)


def _sent(view: ClientView, function: Any, *args: Any) -> Check | tuple[str, Report]:
    """Run a canary to its end; return it, or what went wrong."""
    from palpable._cli.attended_task import id_for, submit
    from palpable._cli.outcomes import describe_end
    from palpable._connection.questions import query_results

    task_id = id_for(view)
    try:
        submit(view, task_id, function, args, {}, "canary")
    except PalpableError as error:
        return Check("task", "failed", f"the server refuses it: {error}", "Do as it says.")
    (report,) = query_results(view._get_connection(), [task_id], PATIENCE_SECONDS, take=False)
    if report is None:
        advice = "Start it with larger --retention-seconds and --retention-capacity."
        return Check("task", "failed", "the server drops a task as soon as it has ended", advice)
    if not report.outcome:
        view._client.cancel(task_id)
        found = f"it is still {report.state} after {PATIENCE_SECONDS:g} s"
        return Check("task", "failed", found, "Are all workers busy? See `palpable top`; start with more --workers.")
    if report.outcome != "succeeded":
        advice = "Is Palpable of the same version installed for the server's Python? See its server.log."
        return Check("task", "failed", f"it did not succeed: {describe_end(report)}", advice)
    return task_id, report


def _result(report: Report) -> dict[str, Any] | None:
    from palpable._wire.payload import result_of

    result = result_of(report)
    return result if isinstance(result, dict) else None


def _check_cancel(client: Client, view: ClientView, *, is_here: bool) -> Check:
    from palpable._cli.attended_task import id_for, submit
    from palpable._cli.canary import start_nest
    from palpable._connection.questions import query_results

    task_id = id_for(view)
    submit(view, task_id, start_nest, (), {}, "canary")
    impatience = threading.Timer(PATIENCE_SECONDS, client.cancel, (task_id,))
    impatience.start()
    try:
        pids = _first_numbers(client, task_id)
        were_seen = is_here and all(map(_is_alive, pids))
        client.cancel(task_id)
    finally:
        impatience.cancel()
        impatience.join()
    (report,) = query_results(view._get_connection(), [task_id], PATIENCE_SECONDS, take=False)
    if report is None or report.outcome != "cancelled" or not pids:
        found = "it did not start" if not pids else "it was not cancelled"
        return Check("cancel", "failed", f"a task with a child was to be cancelled; {found}", "See the server.log.")
    if not were_seen:
        return Check("cancel", "ok", "a task with a child was cancelled; its processes can't be seen from here")
    left = [pid for pid in pids if _is_alive(pid)]
    if left:
        found = f"processes {', '.join(map(str, left))} outlived their task"
        return Check("cancel", "failed", found, f"End them: kill -9 {' '.join(map(str, left))}. Please report it.")
    return Check("cancel", "ok", "a task was ended with its child, which had a session of its own")


def _first_numbers(client: Client, task_id: str) -> list[int]:
    """Return the numbers in the first line that a task prints; none if it ends without one."""
    text = ""
    for piece in client.logs(task_id, follow=True):
        text += piece
        if "\n" in text:
            return [int(word) for word in text.partition("\n")[0].split() if word.isdigit()]
    return []


def _is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")
