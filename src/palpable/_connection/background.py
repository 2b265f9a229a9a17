"""The thread of a connection that does what no blocked caller is there to do.

It reads while futures are pending and nobody waits in a call, sends what lingers, and runs the code of others:
callbacks of futures, and the conditions that `concurrent.futures.wait` and `as_completed` sleep on. These never run on
a thread that only happens to read the socket, which may hold locks that they need, and never on the main thread, where
a Ctrl-C could end them half way.

It is started when it is first needed. It sleeps in `poll` without a timeout when there is nothing to do; after some
activity it stays half awake for a few milliseconds, so that a loop of calls need not wake it again for each.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from palpable._connection.readiness import wait_until_ready

if TYPE_CHECKING:
    from palpable._connection.connection import Connection

logger = logging.getLogger("palpable.client")

CALM_SECONDS = 0.005
"""Between two looks at a connection that is used all the time."""
JOIN_SECONDS = 2.0


class Background:
    """The thread, and what it was asked to do.

    The thread holds the connection; the connection's owner (a client, a future) is never held by it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._wake_sender: socket.socket | None = None
        self._wake_receiver: socket.socket | None = None
        self._ident = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._is_stopping = False
        self._is_over = False
        self.is_attentive = False
        """Whether the thread will soon look at the connection by itself, so that it need not be woken."""
        self._is_calm = False
        """Whether it will look at the connection by itself, a few milliseconds from now."""
        self.is_wanted_at_once = False
        """Whether it is to read without lingering: somebody waits by other means than a call of this connection."""

    # --- from other threads ---------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Have the thread look at the connection within a few milliseconds."""
        # Who against whom: we, after adding something, against the thread that goes to sleep. It first clears the
        # flag and then looks once more whether there is something; we first add and then read the flag.
        if not self.is_attentive:
            self.is_attentive = True
            self.wake()

    def attend_calmly(self) -> None:
        """Have the thread look at the connection now and then, as long as it is used: for acknowledgements.

        It need not be woken for each: a thread that calls again and again would hand the interpreter over every time.
        """
        # The order is that of `attend`.
        if not (self.is_attentive or self._is_calm):
            self._is_calm = True
            self.wake()

    def read_at_once(self) -> None:
        """Have the thread read, if nobody does."""
        self.is_wanted_at_once = True
        self.wake()

    def call(self, function: Callable[[], None]) -> None:
        """Have the thread call `function`."""
        self._calls.append(function)
        if threading.get_ident() != self._ident:  # else it does so before it reads or sleeps again
            self.wake()

    def wake(self) -> None:
        """Have the thread look at the connection now; start it if there is none."""
        with self._lock:
            if self._is_stopping and self._thread is None:
                self._run_calls()
                return
            if self._thread is None:
                self._start()
                return
            try:
                assert self._wake_sender is not None
                self._wake_sender.send(b"\0")
            except BlockingIOError:
                pass  # there are thousands of wake-ups in the buffer already

    @property
    def is_running(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def stop(self, *, wait: bool) -> None:
        """End the thread, after the calls it was asked for.

        Args:
            wait: until it has ended, but not for ever: a callback of the user may keep it busy.
        """
        with self._lock:
            self._is_stopping = True
            thread = self._thread
            if thread is None:
                return
            self.wake()
        if wait and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)

    def abandon(self) -> None:
        """The thread is not in this process, or about to be stopped: drop what belonged to it."""
        self._lock = threading.RLock()
        self._calls.clear()
        self._is_stopping = self._is_over = True
        self._thread = None
        for one in (self._wake_sender, self._wake_receiver):
            if one is not None:
                one.close()

    def _start(self) -> None:
        """Start the thread; the caller holds the lock."""
        sender, receiver = socket.socketpair()
        sender.setblocking(False)
        receiver.setblocking(False)
        # A daemon: the interpreter's exit does not wait for it.
        thread = threading.Thread(target=self._run, args=(sender, receiver), name="palpable-connection", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No thread can be started any more, the interpreter is about to exit: do here what cannot be done there.
            sender.close()
            receiver.close()
            self._run_calls()
        else:
            self._enter(thread, sender, receiver)

    def _enter(self, thread: threading.Thread, sender: socket.socket, receiver: socket.socket) -> bool:
        """Note that `thread` is the one; return False if another is."""
        with self._lock:
            if self._thread is None and not self._is_over:
                self._thread, self._wake_sender, self._wake_receiver = thread, sender, receiver
            return self._thread is thread

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self, sender: socket.socket, receiver: socket.socket) -> None:
        """Until stopped: call, send, then read or sleep until woken."""
        # Here too, because a Ctrl-C may have come between its start and the note of it; and then another may have
        # been started in its place.
        if not self._enter(threading.current_thread(), sender, receiver):
            sender.close()
            receiver.close()
            return
        self._ident = threading.get_ident()
        connection = self._connection
        try:
            while True:
                self._run_calls()
                if self._is_stopping and not self._calls:
                    break
                self.is_attentive = True
                is_reading = False
                try:
                    pause = connection.tend(monotonic())
                    is_reading, wait_to_read = connection.claim_for_background(monotonic())
                    if wait_to_read is not None:
                        pause = wait_to_read if pause is None else min(pause, wait_to_read)
                    if pause is None:
                        self.is_attentive = False
                        if self._is_calm:
                            if connection.was_used_within(CALM_SECONDS):
                                pause = CALM_SECONDS
                            else:
                                self._is_calm = False
                        if connection.needs_attention(is_reading):
                            continue
                    self._wait(receiver, connection, is_reading, pause)
                finally:
                    if is_reading:
                        connection.release_from_background()
        finally:
            with self._lock:
                self._is_stopping = self._is_over = True
                self._thread = self._wake_sender = self._wake_receiver = None
                sender.close()
                receiver.close()
            self._ident = 0
            self._run_calls()  # what was added until the flag was set; later ones are called by `wake`
            connection.link.dispose()

    def _wait(self, receiver: socket.socket, connection: Connection, is_reading: bool, pause: float | None) -> None:
        if is_reading and connection.read_in_background(is_ready=False):
            return
        link = connection.link
        stream = link.stream
        try:
            ready = wait_until_ready(
                [receiver, stream] if is_reading else [receiver],
                [stream] if connection.is_send_blocked else [],
                pause,
            )
        except (OSError, ValueError) as error:
            link.break_off(f"its socket was closed: {error}")
            return
        if receiver.fileno() in ready:
            try:
                receiver.recv(4096)
            except OSError:
                pass  # none there after all, or closed at the exit of the interpreter
        if is_reading and stream.fileno() in ready:
            connection.read_in_background(is_ready=True)

    def _run_calls(self) -> None:
        calls = self._calls
        while calls:
            try:
                function = calls.popleft()
            except IndexError:  # another thread took it
                return
            try:
                function()
            except BaseException as error:  # the code of others
                if is_for_caller(error):
                    raise
                logger.exception("a callback of a task's future failed")
            del function  # it holds a future, and that its result


def is_for_caller(error: BaseException) -> bool:
    """Whether what a callback raised is to go on to whoever runs it, rather than into the log.

    A callback that calls `sys.exit()` must not end the thread, which serves everybody. Where there is none any more,
    the main thread may have to run callbacks: there a Ctrl-C is meant for the program.
    """
    return not isinstance(error, Exception) and threading.current_thread() is threading.main_thread()
