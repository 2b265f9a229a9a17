"""Connecting again after the connection to a server broke: how often, for how long, and on which thread.

The thread is started when a connection breaks while something is expected from it, and ends when it is whole again, or
given up. It is not one of those that wait: they sleep meanwhile, and their timeouts and a Ctrl-C find them as always.
Nor is it the background thread, which runs the code of users, who may wait in it for what needs the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from palpable.units.task_exceptions import PalpableError, ServerUnreachable

if TYPE_CHECKING:
    import random
    import socket

    from palpable._connection.connection import Connection
    from palpable._connection.tls_stream import TlsStream
    from palpable._wire.framing import FrameReader

T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 2.0
DURABLE_SECONDS = 60.0
"""How long a client tries by default, when the server keeps its tasks on disk: it is expected to be started again."""


class Proven(NamedTuple):
    """A socket after the handshake."""

    stream: socket.socket | TlsStream
    reader: FrameReader[Any]
    info: Mapping[str, Any]
    """What the server says of itself."""
    inside_task: str = ""
    """The task this process runs, or was started by, if it is one of that server's."""


class Again(NamedTuple):
    """How to connect again.

    Attributes:
        dial: makes a new socket to the same server, after the handshake. Raises ServerUnreachable when there may be one
            later; any other PalpableError when there is no hope.
        seconds: how long to try. 0: never. None: as long as the server is worth waiting for.
    """

    dial: Callable[[], Proven]
    seconds: float | None = None


def seconds_to_try(seconds: float | None, info: Mapping[str, Any]) -> float:
    """Return how long to try to connect again. 0: once, at once.

    Args:
        seconds: what the user said, if anything.
        info: what the server said of itself.
    """
    if seconds is not None:
        return seconds
    # What a server keeps in memory ends with it. There only a connection that broke alone can be helped, at once.
    return DURABLE_SECONDS if info.get("is_durable") else 0.0


def delays(rng: random.Random | None = None) -> Iterator[float]:
    """Yield the wait before each further try, in seconds: exponential, with full jitter.

    So that a thousand clients of a server that starts again do not come all at once.
    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    if rng is None:
        import random  # late: a client that never needs it need not load it

        rng = random.Random()
    most = FIRST_DELAY_SECONDS
    while True:
        yield rng.uniform(0.0, most)
        most = min(MAX_DELAY_SECONDS, most * 2)


def dial_patiently(dial: Callable[[], T], seconds: float, is_over: Callable[[], bool]) -> T:
    """Return what `dial` does; while it raises ServerUnreachable, try again for `seconds`, unless `is_over()`."""
    until, waits = monotonic() + seconds, delays()
    while True:
        try:
            return dial()
        except ServerUnreachable:
            wait_seconds = next(waits)
            if is_over() or monotonic() + wait_seconds > until:
                raise
        sleep(wait_seconds)


class Reconnecting:
    """Makes a connection whole again, each time it breaks. Safe to use from every thread.

    Args:
        again: how.
        connection: which.
    """

    def __init__(self, again: Again, connection: Connection) -> None:
        self._again = again
        self._connection = connection
        # Reentrant: a signal handler may come between.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._latest: threading.Thread | None = None
        """As `_thread`, and not forgotten when it is about to end."""
        self._stopped = threading.Event()
        self._waits = delays()
        self._until = 0.0
        self._is_first_try = True
        self._failure = ""

    def broke(self, info: Mapping[str, Any], *, has_progressed: bool) -> None:
        """The connection broke.

        Args:
            has_progressed: something came since it was whole last time. If not, that does not count as a success, or
                what breaks every connection would be sent for ever.
        """
        if has_progressed:
            self._waits = delays()
            self._until = monotonic() + seconds_to_try(self._again.seconds, info)
        self._failure = "it broke again and again"
        self._is_first_try = has_progressed

    def ensure(self) -> None:
        """Have the thread see to it; does nothing if it does, or if it is not needed.

        Raises:
            RuntimeError: no thread can be started, e.g. because the interpreter exits.
        """
        with self._lock:
            # One that was started, but not by a start that was interrupted before.
            if self.is_running or self._stopped.is_set() or not self._connection.needs_link:
                return
            self._thread = threading.Thread(target=self._run, name="palpable-reconnecting", daemon=True)
            self._latest = self._thread
            self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether a thread sees to it."""
        return self._thread is not None and self._thread.ident is not None

    def adopt(self, proven: Proven) -> bool:
        """Have the connection go on with a socket that somebody else made; return False if it can't.

        On another thread, as always: a Ctrl-C in the middle of a hand-over would tear it.
        """
        adopted: list[bool] = []
        thread = threading.Thread(
            target=lambda: adopted.append(self._connection.try_adopt(proven, is_new=True)),
            name="palpable-reconnecting",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits
            return False
        thread.join()
        return adopted == [True]

    def stop(self, *, wait_seconds: float = 0.0) -> None:
        """No further try, ever. Safe to call twice, and from the thread itself."""
        self._stopped.set()
        if not wait_seconds:
            return
        with self._lock:  # another thread may be about to start it
            thread = self._latest
        if thread is not None and thread is not threading.current_thread() and thread.ident:
            thread.join(wait_seconds)

    def _run(self) -> None:
        """As long as the connection needs a link: wait, unless it is the first time; dial; let it adopt what came."""
        try:
            while self._is_mine() and self._connection.needs_link and not self._stopped.is_set():
                if self._is_first_try:
                    self._is_first_try = False
                    self._try()
                elif self._wait():
                    self._try()
        finally:
            with self._lock:
                if self._is_mine():
                    self._thread = None
        # Who against whom: we, who have ended, against somebody who found the connection broken once more and us still
        # running. They did nothing; so we look, after we no longer seem to run.
        self._connection.ensure_link()

    def _is_mine(self) -> bool:
        return self._thread is threading.current_thread()

    def _wait(self) -> bool:
        """Wait before the next try; return False if there is none."""
        wait_seconds = next(self._waits)
        if monotonic() + wait_seconds > self._until:
            self._connection.give_up(self._failure)
            return False
        return not self._stopped.wait(wait_seconds)

    def _try(self) -> None:
        try:
            self._connection.adopt(self._again.dial())
        except ServerUnreachable as error:
            self._failure = f"connecting again failed: {error}"
        except PalpableError as error:  # another key, another program, another server
            self._connection.give_up(f"connecting again failed: {error}")
        except BaseException as error:
            # Whatever it is, somebody waits, and nobody else would tell them.
            self._connection.give_up(f"connecting again failed: {type(error).__name__}: {error}")
            raise
