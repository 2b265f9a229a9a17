"""The server, as its owner holds it.

Runs in: the owner's process; and in task processes whose code imports `Server`, without making one. There each module
costs a task time, so what only a server that is made needs is imported then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from palpable._connection.address import make_address
from palpable._connection.checks import check_number
from palpable._wire.framing import DEFAULT_LIMIT_BYTES, FrameReader, encode_frame
from palpable._wire.handshake import checked_authkey
from palpable._wire.sendable_text import sendable
from palpable.servants.control import ServerFailed, ServerStarted, StartServer, StopServer, ToOwner
from palpable.servants.servant import Servant
from palpable.servants.settings import ServerSettings, usable_cores
from palpable.units.task_exceptions import ServerStartError
from palpable.units.task_options import OptionArguments, checked_fields

if TYPE_CHECKING:
    import subprocess

    from palpable.servants.private_folder import PrivateFolder
    from palpable.units.client import Client

START_SECONDS = 60.0
"""How long a server may take until it listens, or says that it is still reading its store."""
RETENTION_SECONDS, DURABLE_RETENTION_SECONDS = 60.0, 86_400.0
"""How long finished tasks are kept: for a client that asks soon, or that comes back after the server was down."""
_BOOT = """
import gc, sys
gc.disable()  # until the imports are done: see `collect_rarely`
sys.path.insert(0, sys.argv[2])
from palpable._wire.lean_msgspec import import_msgspec
import_msgspec()
from palpable.servants.server_process import main
main()
"""


class Server(Servant):
    """Runs tasks, each in a process of its own, for any number of clients.

    `start` runs the server in a process of its own, executed afresh; it ends when its owner ends. `serve` runs it in
    the foreground instead. `with Server() as server:` starts, and at the end stops, joins and closes.

    Args:
        logging_folder: where log files go. None: a private folder, removed by `close`.
        address: ("127.0.0.1", 8089) or the path of a Unix socket. None: a private Unix socket. Port 0: a free port,
            see `address`.
        family: "AF_INET" or "AF_UNIX". None: what fits the address.
        authkey: what clients must prove to hold; bytes. None: a random key, see `authkey`.
        num_workers: how many tasks run at once. None: the cores this process may use.
        task_timeout_seconds: a task that runs longer is killed and fails with `TaskTimeout`. None: no limit.
        result_retention_capacity: finished tasks kept at most; the oldest go first.
        result_retention_seconds: how long a finished task is kept; None: 60, or with a store 86,400 (a day).
        isolation: "task", a fresh process for every task, or "worker", one process for many; a client may choose for
            its own tasks.
        preload: names of modules that task processes find imported already.
        tls: the files of a certificate and its key, for TLS on TCP.
        kill_grace_seconds: between SIGTERM and SIGKILL, when a task is ended.
        max_tasks_per_process: isolation "worker": a process is replaced after this many tasks. None: no limit.
        max_payload_bytes: the largest message accepted from a client or a task.
        output_limit_bytes: what is kept of each task's output; of more, the head and the tail.
        allow_plaintext: listen on a TCP address that is not loopback, without TLS. The key is never sent, but
            whoever can read the network sees tasks and results, and may alter them.
        store: the path of a database file in which tasks and results are kept: what was accepted survives the end of
            the server, also by `kill -9`, and a server that is started on the same file goes on with it. None: they are
            kept in memory. "none" in a path's place is a file of that name.
        drain_seconds: when the server is told to stop, what runs may take so long to end. What does not is killed: with
            a store it is handed back, to be run again, else it fails with `TaskKilledByQuitSignal`.
        task_options: the options of tasks (see `Client`) where neither the call, nor the function, nor the client has
            set them: {"retries": 2, "backoff_seconds": 5}.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range; the message names it.

    Example:
        >>> with Server(num_workers=1) as server:
        ...     server.client().run(abs, -3)
        3
    """

    def __init__(
        self,
        logging_folder: str | os.PathLike[str] | None = None,
        address: tuple[str, int] | str | os.PathLike[str] | None = None,
        family: str | None = None,
        authkey: bytes | None = None,
        num_workers: int | None = None,
        task_timeout_seconds: float | None = 10_800,
        result_retention_capacity: int = 100_000,
        result_retention_seconds: float | None = None,
        *,
        isolation: Literal["task", "worker"] = "task",
        preload: Iterable[str] = (),
        tls: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        kill_grace_seconds: float = 3.0,
        max_tasks_per_process: int | None = None,
        max_payload_bytes: int = DEFAULT_LIMIT_BYTES,
        output_limit_bytes: int = 1 << 20,
        allow_plaintext: bool = False,
        store: str | os.PathLike[str] | None = None,
        drain_seconds: float = 0.0,
        task_options: OptionArguments | None = None,
    ) -> None:
        num_workers = check_number("num_workers", num_workers, least=1, most=4096, is_whole=True, may_be_none=True)
        check_number("task_timeout_seconds", task_timeout_seconds, least=0.001, may_be_none=True)
        result_retention_capacity = check_number(
            "result_retention_capacity", result_retention_capacity, least=0, is_whole=True
        )
        check_number("result_retention_seconds", result_retention_seconds, least=0, may_be_none=True)
        check_number("drain_seconds", drain_seconds, least=0, most=86_400)
        if store is not None and not isinstance(store, (str, os.PathLike)):
            raise TypeError(f"store must be the path of a file or None, not {store!r}")
        if store == ":memory:":  # what SQLite calls so is for one process, and would keep nothing
            raise ValueError("store must be the path of a file. To keep everything in memory, leave it out (None)")
        if result_retention_seconds is None:
            result_retention_seconds = RETENTION_SECONDS if store is None else DURABLE_RETENTION_SECONDS
        check_number("kill_grace_seconds", kill_grace_seconds, least=0, most=3600)
        max_tasks_per_process = check_number(
            "max_tasks_per_process", max_tasks_per_process, least=1, is_whole=True, may_be_none=True
        )
        max_payload_bytes = check_number(
            "max_payload_bytes", max_payload_bytes, least=1024, most=0xFFFFFFFF, is_whole=True
        )
        output_limit_bytes = check_number(
            "output_limit_bytes", output_limit_bytes, least=0, most=1 << 40, is_whole=True
        )
        if isolation not in ("task", "worker"):
            raise ValueError(f"isolation must be 'task' or 'worker', not {isolation!r}")
        if isinstance(preload, str):
            raise TypeError(f"preload must be a list of module names, not the string {preload!r}")
        self._wanted_address, self._family = _checked_address(address, family)
        if self._family == "AF_INET" and tls is None and not allow_plaintext:
            _refuse_plaintext(str(self._wanted_address[0]))
        self._authkey = os.urandom(32) if authkey is None else checked_authkey(authkey)
        self._private_folder: PrivateFolder | None = None
        self._logging_folder: str | None = (
            None if logging_folder is None else _checked_path("logging_folder", logging_folder)
        )
        self._owns_logging_folder = logging_folder is None
        self._settings: dict[str, Any] = {
            "num_workers": usable_cores() if num_workers is None else num_workers,
            "task_timeout_seconds": task_timeout_seconds,
            "result_retention_capacity": result_retention_capacity,
            "result_retention_seconds": result_retention_seconds,
            "isolation": isolation,
            "preload": list(preload),
            "tls": None if tls is None else (str(Path(tls[0]).absolute()), str(Path(tls[1]).absolute())),
            "kill_grace_seconds": kill_grace_seconds,
            "max_tasks_per_process": max_tasks_per_process,
            "max_payload_bytes": max_payload_bytes,
            "output_limit_bytes": output_limit_bytes,
            "store_path": None if store is None else _checked_path("store", store),
            "drain_seconds": drain_seconds,
            "task_options": checked_fields(task_options or {}, whose="a server"),
        }
        self.recovered: dict[str, int] = {}
        """Once started: how many tasks an earlier start on the same store had left, by what became of them."""
        self._address: tuple[str, int] | str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._was_stopped = False
        self._owner_pid = os.getpid()

    def __repr__(self) -> str:
        state = f"listening on {self.address!r}" if self.is_listening else "not running"
        return f"<{type(self).__name__} {state}>"

    # --- what clients need ---

    @property
    def address(self) -> tuple[str, int] | str:
        """Where the server listens; once started, with the port that was chosen."""
        return self._wanted_address if self._address is None else self._address

    @property
    def family(self) -> str:
        return self._family

    @property
    def authkey(self) -> bytes:
        return self._authkey

    @property
    def store_path(self) -> str | None:
        """The file in which tasks and results are kept; None: they are in memory."""
        path: str | None = self._settings["store_path"]
        return path

    def client(self) -> Client:
        """Return a client of this server.

        Raises:
            RuntimeError: it has no address before it is started.
        """
        from palpable.units.client import Client

        if not self.address:
            raise RuntimeError("the server is not started: call start() first, or use it in a with statement")
        tls = self._settings["tls"]
        return Client(self.address, self._family, self._authkey, tls=None if tls is None else tls[0])

    # --- life ---

    def start(self) -> Self:
        """Start the server process; return when it listens. Does nothing if it runs.

        Raises:
            ServerStartError: it could not start, or took longer than a minute; the reason is in the message.
        """
        if self._process is not None and self._process.poll() is None:
            return self
        import subprocess

        settings = self._make_settings()
        assert self._private_folder is not None
        ours, theirs = socket.socketpair()
        package_folder = str(Path(__file__).resolve().parents[2])
        with open(os.path.join(settings.logging_folder, "server.err"), "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), package_folder],
                pass_fds=[theirs.fileno(), self._private_folder.lock_fd],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        theirs.close()
        self._control = ours
        self._was_stopped = False
        self._owner_pid = os.getpid()
        ours.settimeout(START_SECONDS)
        try:
            with contextlib.suppress(ConnectionError):  # it has ended already: found out, and said, by the next step
                ours.sendall(encode_frame(StartServer(settings=settings, owner_pid=os.getpid())))
            self._address = self._wait_started(ours, settings)
        except BaseException:
            self._process.kill()
            self._process.wait()
            self.close()
            raise
        return self

    def _wait_started(self, control: socket.socket, settings: ServerSettings) -> tuple[str, int] | str:
        reader: FrameReader[Any] = FrameReader(ToOwner)
        while True:
            try:
                data = control.recv(1 << 16)
            except TimeoutError:
                raise ServerStartError(f"the server did not listen within {START_SECONDS:g} seconds") from None
            except ConnectionError:  # killed before it had read all that it was told
                data = b""
            if not data:
                raise ServerStartError("the server process ended at its start: " + _last_line(settings.logging_folder))
            for message in reader.feed(data):
                if isinstance(message, ServerFailed):
                    raise ServerStartError(_why_not_started(settings, message))
                if isinstance(message, ServerStarted):
                    self.recovered = message.recovered
                    return message.address

    def serve(self, on_listening: Any = None) -> None:
        """Run the server in this process until SIGTERM, SIGINT or a client's `quit`.

        Args:
            on_listening: called with the address when clients can connect.

        Raises:
            OSError: it cannot listen there, cannot write its folders, or what a server before it on the same store left
                behind does not end.
        """
        from palpable.servants.server_loop import ServerLoop
        from palpable.servants.server_process import run_event_loop

        server = ServerLoop(self._make_settings())

        async def main() -> None:
            import asyncio

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.on_signal)

            def listening(address: tuple[str, int] | str) -> None:
                self._address, self.recovered = address, server.recovered
                if on_listening is not None:
                    on_listening(address)

            await server.run(listening)

        try:
            run_event_loop(main)
        finally:
            self._address = None

    @property
    def pid(self) -> int | None:
        """The process id of the server process; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def is_listening(self) -> bool:
        """Whether clients can connect."""
        return self._address is not None and self.pid is not None

    @property
    def status(self) -> dict[str, Any]:
        """`worker_status`, `task_queue_size`, `result_cache_size` and more, as `Client.get_status` returns it."""
        with self.client() as client:
            return client.get_status()

    def stop(self) -> None:
        """Tell the server to stop. Returns at once.

        What runs may take `drain_seconds` to end. What does not is killed: a server with a store runs it again when it
        is started again, for another it fails with `TaskKilledByQuitSignal`.
        """
        if self._control is not None and not self._was_stopped and os.getpid() == self._owner_pid:
            self._was_stopped = True
            with contextlib.suppress(OSError):  # it has ended already
                self._control.sendall(encode_frame(StopServer()))

    def join(self) -> None:
        """Wait until the server process, and with it every task process, has ended."""
        if self._process is None or os.getpid() != self._owner_pid:
            return
        import subprocess

        if self._was_stopped:
            # It ends by itself within the grace time; only a server that hangs is killed.
            try:
                self._process.wait(self._settings["drain_seconds"] + self._settings["kill_grace_seconds"] + 15.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._address = None

    def close(self) -> None:
        """Release what is held: sockets, and the folders that the server made for itself."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if os.getpid() != self._owner_pid:
            return
        if self._process is not None:
            self.join()
            self._process = None
        if self._private_folder is not None:
            if self._wanted_address == os.path.join(self._private_folder.path, "socket"):
                self._wanted_address = ""  # the next start has a folder of its own
            self._private_folder.remove()
            self._private_folder = None
            if self._owns_logging_folder:
                self._logging_folder = None

    # --- settings ---

    def _make_settings(self) -> ServerSettings:
        if self._private_folder is None:
            from palpable.servants.private_folder import PrivateFolder

            self._private_folder = PrivateFolder()
        folder = self._private_folder.path
        if self._logging_folder is None:
            self._logging_folder = os.path.join(folder, "logs")
        os.makedirs(self._logging_folder, exist_ok=True)
        address = self._wanted_address or os.path.join(folder, "socket")
        self._wanted_address = address
        settings = ServerSettings(
            address=address,
            family=self._family,  # type: ignore[arg-type]
            authkey=self._authkey,
            logging_folder=self._logging_folder,
            private_folder=folder,
            server_id=os.urandom(8).hex(),
            sys_path=[os.path.abspath(entry) for entry in sys.path],
            **self._settings,
        )
        os.makedirs(settings.spool_folder, mode=0o700, exist_ok=True)
        return settings


def _checked_address(address: Any, family: str | None) -> tuple[tuple[str, int] | str, str]:
    if family not in (None, "AF_INET", "AF_UNIX"):
        raise ValueError(f"family must be 'AF_INET' or 'AF_UNIX', not {family!r}")
    if address is None:
        return ("127.0.0.1", 0) if family == "AF_INET" else "", family or "AF_UNIX"
    made = make_address(address, family, least_port=0)
    return (str(Path(made.path).absolute()), "AF_UNIX") if made.path else ((made.host, made.port), "AF_INET")


def _checked_path(name: str, path: str | os.PathLike[str]) -> str:
    """Return a path that the server process can be told, and that no change of the current folder moves."""
    absolute = str(Path(path).absolute())
    if "\0" in absolute or sendable(absolute) != absolute:
        raise ValueError(f"{name} must be a path in UTF-8 without null characters, not {absolute!r}")
    return absolute


def _refuse_plaintext(host: str) -> None:
    import ipaddress

    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise ValueError(
            f"address: {host!r} can be reached from other machines. Pass tls=(certificate, key), "
            f"or allow_plaintext=True if you trust everybody on that network."
        )


def _why_not_started(settings: ServerSettings, failure: ServerFailed) -> str:
    if failure.error in ("StoreBroken", "Stopped"):
        return failure.message
    if failure.error == "NoZygote":
        return f"{failure.message}. Its last words: {_last_line(settings.logging_folder)}"
    if failure.error != "CannotListen":
        reason = f"{failure.error}: {failure.message}" if failure.message else failure.error
        return f"the server could not start: {reason}"
    advice = ""
    if failure.error_number == errno.EADDRINUSE:
        advice = ". Another program listens there: end it, or choose another port (0: one that is free)"
    return f"the server cannot listen on {settings.address!r}: {failure.message}{advice}"


def _last_line(logging_folder: str) -> str:
    try:
        lines = Path(logging_folder, "server.err").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "no reason was given"
