"""One turn of `brief_turn` with what it needs around it, in a process that has no other children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from palpable._wire.framing import FrameReader
from palpable._wire.messages import FromZygote
from palpable._zygote import os_calls
from palpable._zygote.books import Books
from palpable._zygote.brief_turn import make_forker, make_turn
from palpable._zygote.replacement import read_replacement
from palpable._zygote.strays import OwnChildren, kill_strays


def run(scenario: str) -> dict[str, Any]:
    """Return what that scenario of this module tells, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.brief_turns", scenario], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


class Stage:
    """Books with task processes in them, and a turn. `peer` is the server's end of the control socket."""

    def __init__(self, fork_process: Callable[[Any, tuple[str, int]], int] | None = None) -> None:
        self.control, self.peer = socket.socketpair()
        self.peer.settimeout(10)
        self.books = Books()
        self.child_signal = os_calls.ChildSignal()
        self.children = OwnChildren()
        self.not_forked: list[tuple[bytes, Any]] = []
        self.reader: FrameReader[FromZygote] = FrameReader(FromZygote)
        self.turn = make_turn(
            self.books,
            self.control.fileno(),
            self.child_signal.fd,
            self.children.fd,
            fork_process or make_forker(os_calls.fork_or_minus_one, _echo, _fail),
            kill_strays=lambda pid: kill_strays(self.books.alive, find=self.children.pids, groups=(pid,)),
            on_not_forked=lambda record, spool: self.not_forked.append((record, spool)),
            send_rest=lambda _frame, sent: sys.exit(f"only {sent} bytes were sent"),
        )

    def ended(self, code: int, *, is_known: bool = True) -> int:
        """Return the pid of a child that has exited with `code`, and was not waited for."""
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if is_known:
            self.books.alive[pid] = (f"{pid}.out", 1)
            self.books.count += 1
        return pid

    def hear(self) -> tuple[Any, int, socket.socket]:
        """Return how a process ended, the pid of the next one, and the socket to it."""
        data, fds, _, _ = socket.recv_fds(self.peer, 4096, 4)
        (message,) = self.reader.feed(data)
        return *read_replacement(message.record), socket.socket(fileno=fds[0])  # type: ignore[union-attr,return-value]


def _echo(socket_fd: int, _spool_fd: int) -> Any:
    """The life of a child: send back what comes, and exit."""
    os.write(socket_fd, os.read(socket_fd, 100))
    os._exit(0)


def _let_go(pid: int, end: socket.socket) -> None:
    end.sendall(b"x")
    os.waitpid(pid, 0)
    end.close()


def _fail(error: BaseException) -> Any:
    os._exit(99)


def _fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def replaced() -> dict[str, Any]:
    stage = Stage()
    fds = _fds()
    pid = stage.ended(3)
    is_done = stage.turn()
    told, new_pid, end = stage.hear()
    end.sendall(b"hello")
    answer = end.recv(100).decode()
    end.close()
    os.waitpid(new_pid, 0)
    return {
        "is_done": is_done,
        "is_old": told.pid == pid,
        "exit_status": told.exit_status,
        "peak_memory_bytes": told.peak_memory_bytes,
        "cpu_seconds": told.cpu_seconds,
        "strays": told.strays_killed,
        "alive": list(stage.books.alive.items()) == [(new_pid, (f"{pid}.out", 1))],
        "answer": answer,
        "fds_left": _fds() - fds,
    }


def killed() -> dict[str, Any]:
    stage = Stage()
    pid = os.fork()
    if pid == 0:
        signal.pause()
    stage.books.alive[pid], stage.books.count = ("x.out", 1), 1
    os.kill(pid, signal.SIGKILL)
    stage.turn()
    told, new_pid, end = stage.hear()
    _let_go(new_pid, end)
    return {"exit_status": told.exit_status}


def not_forked() -> dict[str, Any]:
    stage = Stage(lambda _ends, _spool: -1)
    fds = _fds()
    pid = stage.ended(4)
    is_done = stage.turn()
    ((record, spool),) = stage.not_forked
    return {
        "is_done": is_done,
        "exit_status": read_replacement(record)[0].exit_status,
        "has_spool": spool == (f"{pid}.out", 1),
        "alive": len(stage.books.alive),
        "fds_left": _fds() - fds,
    }


def order_waits() -> dict[str, Any]:
    stage = Stage()
    pid = stage.ended(0)
    stage.peer.sendall(b"an order")
    is_done = stage.turn()
    return {"is_done": is_done, "is_alive": pid in stage.books.alive, "is_left": os.waitpid(pid, 0)[0] == pid}


def order_comes() -> dict[str, Any]:
    """Two have ended; after the first was replaced there is an order."""

    def fork_process(_ends: Any, _spool: tuple[str, int]) -> int:
        stage.peer.sendall(b"an order")
        return 1 << 22  # above any pid

    stage = Stage(fork_process)
    pids = {stage.ended(0), stage.ended(0)}
    is_done = stage.turn()
    left = pids & stage.books.alive.keys()
    return {"is_done": is_done, "left": len(left), "is_left": os.waitpid(left.pop(), 0)[1] == 0}


def stray() -> dict[str, Any]:
    stage = Stage()
    stray_pid = os.fork()
    if stray_pid == 0:
        signal.pause()
    stage.ended(5)
    stage.turn()
    told, new_pid, end = stage.hear()
    _let_go(new_pid, end)
    return {"strays": told.strays_killed, "is_gone": not os.path.exists(f"/proc/{stray_pid}")}


def unknown() -> dict[str, Any]:
    stage = Stage()
    pid = stage.ended(0, is_known=False)
    is_done = stage.turn()
    return {"is_done": is_done, "is_gone": not os.path.exists(f"/proc/{pid}")}


def not_its_case() -> dict[str, Any]:
    """Whatever needs more than a replacement is left."""
    stage = Stage()
    stage.ended(0)
    books = stage.books
    answers = {}
    books.count += 1
    answers["one more is wanted"] = stage.turn()
    books.count -= 1
    books.kill_at[1] = 0.0
    answers["one is to be killed"] = stage.turn()
    books.kill_at.clear()
    books.fork_again_at = 1.0
    answers["a fork has failed"] = stage.turn()
    return answers


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
