"""Small functions for tasks to run: importable in the task processes, so they travel by name."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import palpable

COUNTER = 0
BALLAST: list[bytes] = []


class OddNumber(ValueError):
    """An exception of a user's own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} is odd")
        self.number = number

    def __reduce__(self) -> tuple[type[OddNumber], tuple[int]]:
        return OddNumber, (self.number,)


def double(number: int) -> int:
    return number * 2


@palpable.task(retries=2, timeout_seconds=30, name="treble it")
def treble(number: int) -> int:
    """Return three times the number."""
    return number * 3


patient_treble = treble.options(retries=7)


def half(number: int) -> int:
    if number % 2:
        raise OddNumber(number)
    return number // 2


def own_pid(_: object = None) -> int:
    return os.getpid()


def add_to_counter(_: object = None) -> int:
    global COUNTER
    COUNTER += 1
    return COUNTER


def keep_ballast(size_bytes: int) -> int:
    """Keep that much memory in a global, touched; return the resident memory of the process."""
    BALLAST.append(b"x" * size_bytes)
    return resident_bytes()


def resident_bytes(_: object = None) -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def open_descriptors(_: object = None) -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2),
)


def signal_state(_: object = None) -> list[tuple[str, str, bool]]:
    """The name, the handler, and whether it is blocked, of each of `SIGNALS`."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return [(number.name, getattr(signal.getsignal(number), "name", "python"), number in blocked) for number in SIGNALS]


# --- tasks that a test holds by the hand: they say where they are, and wait to be let go ---------------------------


def announce(folder: str, name: str) -> None:
    """Say, in a file that appears whole, that this point was reached; its content is the pid."""
    path = Path(folder) / name
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(str(os.getpid()))
    scratch.rename(path)


def wait_for_file(path: str | Path) -> None:
    """Return when the file exists."""
    while not os.path.exists(path):
        time.sleep(0.005)


def block(folder: str, name: str = "blocked") -> NoReturn:
    """Say that it runs, then never end by itself."""
    announce(folder, name)
    while True:
        signal.pause()


def hold(folder: str, name: str = "holding") -> str:
    """Say that it runs, then wait until `<name>.go` exists."""
    announce(folder, name)
    wait_for_file(Path(folder) / f"{name}.go")
    return name


def double_or_block(param: tuple[int, str]) -> int:
    """Double the number; with a folder, never end."""
    number, folder = param
    if folder:
        block(folder)
    return number * 2


def fail_with(reason: str) -> NoReturn:
    """Raise an error."""
    raise RuntimeError(reason)


# --- output ---------------------------------------------------------------------------------------------------------


def speak_from_everywhere(_: object = None) -> None:
    """One line each from print, from sys.stderr, from C, and from a subprocess, in this order."""
    print("from print")
    sys.stdout.flush()
    print("from stderr", file=sys.stderr, flush=True)
    libc = ctypes.CDLL(None)
    libc.puts(b"from puts")
    libc.printf(b"from printf %d\n", ctypes.c_int(42))
    libc.fflush(None)
    subprocess.run(["sh", "-c", "echo from a subprocess; echo from its stderr >&2"], check=True)
    os.write(1, b"from write\n")


def speak_from_c_and_return(_: object = None) -> None:
    """C's own buffer is not flushed by Python."""
    ctypes.CDLL(None).printf(b"left in the buffer of C\n")


def print_bytes(size_bytes: int) -> int:
    """Print that much in numbered lines of 100 bytes; the first is 0. Return the number of lines."""
    lines = size_bytes // 100
    for start in range(0, lines, 10_000):
        count = min(10_000, lines - start)
        sys.stdout.write("".join(f"{number:<99}\n" for number in range(start, start + count)))
    return lines


def print_and_wait(folder: str) -> str:
    """Print a line, wait to be let go, print another."""
    print("before", flush=True)
    hold(folder)
    print("after", flush=True)
    return "done"


def print_line(text: str) -> str:
    print(text)
    return text


# --- bad ends -------------------------------------------------------------------------------------------------------


def exit_at_once(code: int) -> NoReturn:
    print("last words", flush=True)
    os._exit(code)


def die_by_signal(number: int) -> NoReturn:
    print("last words", flush=True)
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable")


def read_address_zero(_: object = None) -> None:
    print("last words", flush=True)
    ctypes.string_at(0)


def exceed_memory(limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    keep_ballast(limit_bytes * 2)


def close_all_descriptors(_: object = None) -> str:
    os.closerange(0, 1024)
    return "returned"


def close_all_and_exit(code: int) -> NoReturn:
    os.closerange(0, 1024)
    os._exit(code)


def fork_and_exit_in_child(_: object = None) -> int:
    """The forked child leaves through Python's own exit; the parent returns the child's pid."""
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    return pid


def fork_and_return_in_both(_: object = None) -> int:
    """The child goes on as if it were the task itself."""
    return os.fork()


def exit_by_python(code: Any) -> NoReturn:
    sys.exit(code)


def burn_cpu(seconds: float) -> float:
    """Use that much CPU time; return what was used."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
    return time.process_time() - start


# --- process trees: each starts something that means to outlive its task, says so in `folder`, then goes on ----------


def start_child(folder: str) -> None:
    """An ordinary child process."""
    _stay_as_child(folder, "stray")


def start_session_leader(folder: str) -> None:
    """A child in a session of its own."""
    _stay_as_child(folder, "stray", first=os.setsid)


def start_double_fork(folder: str) -> None:
    """A daemon by the book: fork, setsid, fork; its parent is gone at once."""
    if os.fork() == 0:
        os.setsid()
        _stay_as_child(folder, "stray")
        os._exit(0)
    os.wait()
    wait_for_file(Path(folder) / "stray")


def start_daemon_program(folder: str) -> None:
    """Another program, in a session of its own, whose parent is gone at once."""
    script = f"setsid sh -c 'echo $$ > {folder}/stray.part; mv {folder}/stray.part {folder}/stray; exec sleep 1000' &"
    subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_file(Path(folder) / "stray")


def start_nameless_daemon(folder: str) -> None:
    """The same with an empty environment: nothing it carries says whose it is."""
    script = f"setsid sh -c 'echo $$ > {folder}/stray.part; mv {folder}/stray.part {folder}/stray; exec sleep 1000' &"
    subprocess.run(
        ["sh", "-c", script], check=True, env={"PATH": os.defpath}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_file(Path(folder) / "stray")


def start_stubborn_child(folder: str) -> None:
    """A child that ignores SIGTERM, SIGINT and SIGHUP."""

    def become_stubborn() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    _stay_as_child(folder, "stray", first=become_stubborn)


def start_pool(folder: str) -> None:
    """A `multiprocessing.Pool`, never closed, at work."""
    import multiprocessing

    pool = multiprocessing.get_context("fork").Pool(2)
    BALLAST.append(pool)  # type: ignore[arg-type]
    for number in range(2):
        pool.apply_async(block, (folder, f"pool-{number}"))
    wait_for_file(Path(folder) / "pool-0")
    wait_for_file(Path(folder) / "pool-1")


def start_family(folder: str) -> None:
    """Three generations: a child, its child, and its child, each in a session of its own."""

    def grow(generation: int) -> None:
        if os.fork() == 0:
            os.setsid()
            if generation < 3:
                grow(generation + 1)
            block(folder, f"generation-{generation}")
        wait_for_file(Path(folder) / f"generation-{generation}")

    grow(1)


def _stay_as_child(folder: str, name: str, first: Callable[[], object] = lambda: None) -> None:
    if os.fork() == 0:
        first()
        block(folder, name)
    wait_for_file(Path(folder) / name)


TREES: dict[str, Callable[[str], None]] = {
    "a child": start_child,
    "a session leader": start_session_leader,
    "a double fork": start_double_fork,
    "a daemon program": start_daemon_program,
    "a nameless daemon": start_nameless_daemon,
    "a stubborn child": start_stubborn_child,
    "a pool": start_pool,
    "a family": start_family,
}


def start_tree(kind: str, folder: str, ending: str, ignores_sigterm: bool = False) -> str:
    """Start a tree of processes of that kind, then end as `ending` says: return, crash, or block for ever."""
    if ignores_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    TREES[kind](folder)
    announce(folder, "task")
    if ending == "return":
        return "returned"
    if ending == "crash":
        os._exit(7)
    wait_for_file(Path(folder) / "never")
    return "unreachable"


# --- sub-tasks ------------------------------------------------------------------------------------------------------


def descend(depth: int) -> int:
    """Wait for a sub-task that waits for a sub-task ...; return how many ran."""
    if depth == 0:
        return 1
    return 1 + palpable.current_task().run(descend, depth - 1)


def fib(number: int) -> int:
    """The Fibonacci number, two sub-tasks at every step."""
    if number < 2:
        return number
    return sum(palpable.current_task().map(fib, [number - 1, number - 2]))


def fan_out(count: int) -> list[int]:
    return palpable.current_task().map(double, range(count))


def wait_for_blocked_child(folder: str) -> None:
    """Wait for a sub-task that never ends by itself."""
    palpable.current_task().run(block, folder)


class Add(palpable.Procedure):
    """A procedure of a user's own."""

    def __init__(self, first: int, second: int) -> None:
        self.first = first
        self.second = second

    def run(self, messenger: palpable.Messenger) -> int:
        return self.first + self.second


class Half(palpable.Procedure):
    """A procedure that runs another one through its messenger."""

    def __init__(self, number: int) -> None:
        self.number = number

    def run(self, messenger: palpable.Messenger) -> int:
        return messenger.run_procedure(palpable.RunFunction(half, self.number))


def sleep_in_threads(count: int) -> int:
    """Leave `count` daemon threads behind."""
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return threading.active_count()


# --- attempts: each notes itself in a folder, which outlives them -----------------------------------------------


def note_attempt(folder: str) -> int:
    """Note that an attempt runs; return which one it is, from 1."""
    attempt = palpable.current_task().attempt
    announce(folder, f"attempt-{attempt}")
    return attempt


def attempts_in(folder: str | Path) -> int:
    """How many attempts were noted."""
    return len(list(Path(folder).glob("attempt-*")))


def succeed_at(folder: str, attempt: int) -> int:
    """Raise OddNumber, a ValueError, until this attempt; return its number."""
    if note_attempt(folder) < attempt:
        raise OddNumber(attempt)
    return attempt


def hang_until(folder: str, attempt: int) -> int:
    """Never end, until this attempt; return its number."""
    if note_attempt(folder) < attempt:
        block(folder)
    return attempt


def crash_until(folder: str, attempt: int) -> int:
    """Kill its own process, until this attempt; return its number."""
    if note_attempt(folder) < attempt:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def fail_in_turn(folder: str, endings: list[str]) -> int:
    """End as told for each attempt, "raise" or "crash"; return the number of the attempt after those."""
    attempt = note_attempt(folder)
    if attempt > len(endings):
        return attempt
    if endings[attempt - 1] == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OddNumber(attempt)


def append_line(path: str, line: str) -> str:
    """Write a line into a file that others write too."""
    with open(path, "a") as file:
        file.write(f"{line}\n")
    return line


def moment_of_running(_: object = None) -> float:
    """When this ran, in seconds since the epoch."""
    return time.time()


def bytes_after(path: str, size_bytes: int) -> bytes:
    """Return so many bytes once the file is there."""
    wait_for_file(path)
    return bytes(size_bytes)


def ask_and_never_read(count: int) -> int:
    """Ask for long lists over the socket of this process until it takes no more; return how many questions left."""
    import socket

    from palpable._wire.framing import encode_frame
    from palpable._wire.messages import ListTasks
    from palpable._zygote.task_process import SOCKET_FD

    with socket.socket(fileno=os.dup(SOCKET_FD)) as sock:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        for number in range(count):
            if not poll.poll(500):
                return number
            sock.send(encode_frame(ListTasks(request_id=number)))
    return count


def twenty_megabytes(_number: int) -> bytes:
    return b"x" * 20_000_000


def take_the_first(count: int) -> int:
    """Leave a stream of large results after the first; return its size."""
    with palpable.Client() as client:
        for blob in client.imap(twenty_megabytes, range(count)):
            return len(blob)
    return 0


def large_or_long(number: int) -> bytes:
    if number < 3:
        return b"x" * 20_000_000
    time.sleep(60)
    return b""


def share_memory() -> str:
    """Leave shared memory behind for the resource tracker, once that has heard of it; return its file."""
    import fcntl
    import termios
    from multiprocessing import resource_tracker
    from multiprocessing.shared_memory import SharedMemory

    name = SharedMemory(create=True, size=100).name
    pipe: int = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]
    while any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
        time.sleep(0.005)
    return f"/dev/shm/{name}"
