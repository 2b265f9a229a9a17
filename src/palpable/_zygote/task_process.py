"""A task process: born as a copy of the zygote, it waits for its orders, runs them, and answers.

Runs in: the task process. Speaks with: the server, over its private socket.

With isolation "task" it runs one task and is gone; with "worker" it runs many, each claimed from the claim pipe
(see `RunTasks`), and says of most that they have returned by the returns pipe (see `returns`). How a task can end:

* it returns: `TaskEnded` with the pickled value;
* it raises (KeyboardInterrupt, MemoryError and RecursionError too): `TaskEnded` with the pickled exception. A value
  that can't be pickled is a failure too, `NotPicklable`;
* it raises SystemExit: the process exits with that code, as a program would, and nothing is sent. To raise it in the
  client would end the caller's program, which nobody who writes `sys.exit()` in a task means;
* the process ends in any other way: nothing is sent, and the exit status says it all.

After `TaskEnded` with isolation "task" the process is ended by `os._exit`, as `multiprocessing` ends its children: no
`atexit` handlers, and without waiting for threads, daemons or not. Children that are left (a `multiprocessing.Pool`, a
subprocess) are killed by the zygote; only the folder for temporary files of `multiprocessing` is removed before.

A process that the task forked and that comes back here, as if it were the task, is ended: its parent answers.
"""

from __future__ import annotations

import os
import select
import sys
from collections import OrderedDict, deque
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import putenv
from socket import AF_UNIX, SOCK_STREAM, socket, socketpair
from threading import Lock, Thread
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from palpable._connection import inside
from palpable._wire.chunk_failure import dumps_chunk_failure
from palpable._wire.error_names import names_of_bases
from palpable._wire.framing import FrameError, FrameReader, encode_frame
from palpable._wire.main_module import bring, bring_all
from palpable._wire.messages import RunTasks, TaskEnded, TaskOrder, TaskSaid, ToTaskProcess
from palpable._wire.payload import MODULE_NOT_FOUND, dumps_exception, dumps_result, loads
from palpable._zygote import output
from palpable._zygote.kept_life import keep_running
from palpable._zygote.os_calls import RESERVED_BYTES
from palpable._zygote.prepared_modules import PreparedModules
from palpable.units.messenger import Messenger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from palpable._connection.connection import Connection
    from palpable._zygote.import_costs import ImportClock

SOCKET_FD = 63
"""The private socket, in every task process. High, so that a task that closes everything and then opens files does not
come to have a file there by chance; below 64, which is as many as the kernel's smallest table holds."""
FIRST_PIPE_FD = SOCKET_FD - 2
"""The same for the pipes, which have this number and the next if nothing else has."""

FIRST_READ_BYTES, NEXT_READ_BYTES = 1 << 16, 1 << 18
"""For the second the C library maps memory anew, which is too dear for a small order."""
CHILD_FLUSH_SECONDS = 1.0
"""How long a child that a task forked tries to write what it still holds."""
MAX_FUNCTIONS = 100
"""Unpickled functions a process keeps."""


class TaskProcess:
    """What a task process does. Made once, in the zygote, so that a fork need not make anything.

    Args:
        clock: measures imports.
    """

    def __init__(self, clock: ImportClock) -> None:
        self._open_socket()
        self._reader: FrameReader[Any] = FrameReader(ToTaskProcess)
        self._environ: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
        self.clock = clock
        self.prepared = PreparedModules((clock,))
        clock.on_searched = self.prepared.note_searched
        self.connection: Connection | None = None
        self.lock = Lock()
        self.pid = 0
        self.task_id_room: memoryview | None = None
        """Where the variable PALPABLE_TASK_ID has room reserved (see `os_calls.reserve_variable`)."""
        self._task_id: bytes | None = None
        self._token = b""
        self._attempt, self._attempt_text = 0, b"0"
        self.orders: deque[TaskOrder] = deque()
        self.take_backs = 0
        self.said = 0
        """Frames sent, before there was a connection."""
        self.heard = 0
        """How many of them the server is known to have received (see `returns`)."""
        self.functions: OrderedDict[str, Any] = OrderedDict()
        self._brought: dict[str, tuple[Any, ...]] = {}
        """For each of them what of its caller's `__main__` came with it."""
        self._pickled_functions: dict[str, bytes] = {}
        self._chunk: Any = iter(())
        """Those params of the running chunk that are still to come."""
        os.register_at_fork(after_in_child=self._forget_chunk)

    # --- the life of the process ----------------------------------------------------------------------------------

    def obey(self, data: bytes, ancillary: list[Any]) -> NoReturn:
        """Do what the first frame orders, of which `data` is the beginning."""
        while not (messages := self._reader.feed(data)):
            if not data:
                os._exit(0)  # no longer needed
            data = self.socket.recv(NEXT_READ_BYTES)
        self._task_id = self._environ.get(b"PALPABLE_TASK_ID")
        inside.set_current_messenger(None)
        first = messages[0]
        self._token = first.token.encode()
        if first.isolation == "task":
            self._pickled_functions = first.functions
            order = first.tasks[0]
            deadline = None if order.timeout_seconds is None else monotonic() + order.timeout_seconds
            inside.set_current_messenger(self.messenger(order, deadline))
            ended = self.ended(order, self.attempt(order))
            if os.getpid() != self.pid:
                self.leave_child()
            output.flush()
            self.end(ended)
        for message in messages:
            self._take_orders(message)
        passed = ancillary[0][2] if ancillary else b""
        if len(passed) < 8:  # this process may have no more of them
            output.report("there was no room for the file descriptors that a process needs to run many tasks")
            os._exit(1)
        fds = [int.from_bytes(passed[start : start + 4], sys.byteorder) for start in (0, 4)]
        keep_running(self, *map(_out_of_the_way, fds))

    def end(self, ended: TaskEnded) -> NoReturn:
        """Send the end of the only task, and end this process."""
        self.send_last(ended)
        self.exit_cleanly(0)

    def fail(self, error: BaseException) -> NoReturn:
        """End this process because of an error that is not the task's."""
        sys.excepthook(type(error), error, error.__traceback__)
        output.flush()
        os._exit(1)

    def wait_for_claim(self, claim_fd: int) -> bytes:
        """Return the next byte of the claim pipe; end this process if the server is done with it.

        To be called when nothing can be read from it: the pipe is the server's too, and does not block there.
        """
        while True:
            poll = select.poll()
            poll.register(claim_fd, select.POLLIN)
            poll.register(SOCKET_FD, getattr(select, "POLLRDHUP", 0))
            if any(fd == SOCKET_FD for fd, _ in poll.poll()):
                self.exit_cleanly(0)
            with suppress(BlockingIOError):
                return os.read(claim_fd, 1)

    def leave_child(self, code: int = 0) -> NoReturn:
        """End a child that the task forked and that came back here: its parent answers.

        A thread of the parent's may have been writing when it was forked: the lock of the stream is nobody's here, and
        to flush it takes for ever. So that is tried on a thread, for a moment.
        """
        with suppress(RuntimeError):
            thread = Thread(target=output.flush, daemon=True)
            thread.start()
            thread.join(CHILD_FLUSH_SECONDS)
        os._exit(code)

    def exit_cleanly(self, code: int) -> NoReturn:
        """End this process, and remove what would stay on disk: the folder for temporary files of `multiprocessing`."""
        util = sys.modules.get("multiprocessing.util")
        if util:
            finalizers = getattr(util, "_finalizer_registry", {})
            for key in [key for key in finalizers if key[0] is not None and key[0] < 0]:
                with suppress(Exception):
                    finalizers[key]()
        os._exit(code)

    def _open_socket(self) -> None:
        """Make the object for the private socket, which is the same in all task processes: its number is."""
        ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
        with ours, theirs:
            os.dup2(theirs.fileno(), SOCKET_FD, inheritable=False)
        self.socket = socket(AF_UNIX, SOCK_STREAM, 0, fileno=SOCKET_FD)
        os.close(SOCKET_FD)

    # --- one task -------------------------------------------------------------------------------------------------

    def ended(self, order: TaskOrder, payload: bytes | TaskEnded) -> TaskEnded:
        """Return what there is to say of a task, given what `attempt` returned."""
        if isinstance(payload, TaskEnded):
            return payload
        return TaskEnded(
            task_id=order.task_id,
            is_successful=True,
            payload=payload,
            imported=self.clock.take_costs(),
            searched=self.prepared.take_searched(),
        )

    def messenger(self, order: TaskOrder, deadline: float | None) -> Messenger:
        """Return what the code of a task may ask for.

        Args:
            deadline: when the task will be ended, on the monotonic clock; None: never.
        """
        return Messenger(order.task_id, order.attempt, deadline, order.name, self.get_connection, self.send)

    def attempt(self, order: TaskOrder) -> bytes | TaskEnded:
        """Run the task, whose messenger is set; return its pickled result, or all there is to say of its failure."""
        self.enter_environment(order)
        done: list[Any] = []
        try:
            return dumps_result(self._run(order, done))
        except SystemExit as request:
            self.exit(request)
        except BaseException as error:
            return self.failure(order.task_id, error, done)

    def enter_environment(self, order: TaskOrder) -> None:
        """Have the environment variables tell of this task."""
        # What `os.environb[name] = value` does, without the checks: a fifth of the memory pages written to.
        environ = self._environ
        task_id = order.task_id.encode()
        if environ.get(b"PALPABLE_TASK_ID") is not self._task_id or len(task_id) > RESERVED_BYTES:
            self.task_id_room = None  # a task has changed it, so it may be elsewhere now
        if self.task_id_room is not None:
            # `putenv` is slow, and keeps all it was ever given.
            self.task_id_room[: len(task_id) + 1] = task_id + b"\0"
        else:
            putenv(b"PALPABLE_TASK_ID", task_id)
        environ[b"PALPABLE_TASK_ID"] = self._task_id = task_id
        if environ.get(b"PALPABLE_TASK_TOKEN") is not (token := self._token):
            environ[b"PALPABLE_TASK_TOKEN"] = token
            putenv(b"PALPABLE_TASK_TOKEN", token)
        if order.attempt != self._attempt:
            self._attempt, self._attempt_text = order.attempt, b"%d" % order.attempt
        if environ.get(b"PALPABLE_ATTEMPT") is not (text := self._attempt_text):
            environ[b"PALPABLE_ATTEMPT"] = text
            putenv(b"PALPABLE_ATTEMPT", text)

    def _run(self, order: TaskOrder, done: list[Any]) -> Any:
        """Return what the task returns. Of a chunk, `done` has the results so far, also when it raises."""
        form = order.form
        if not order.payload:
            raise RuntimeError("the server has lost the request of this task. Is its store damaged? Its log says more")
        try:
            function = None if form == "procedure" else self._function(order.function_key)
            loaded = loads(order.payload)
        except ModuleNotFoundError as error:
            error.add_note(MODULE_NOT_FOUND)
            raise
        if function is None:
            return loaded.run(inside.inherited_messenger())
        if form == "call":
            args, kwargs = loaded
            return function(*args, **kwargs)
        params = self._chunk = iter(loaded)
        try:
            _call_each(function, params, done)
        finally:
            self._chunk = iter(())
        if len(done) < len(loaded):  # it would end any loop over `map` just so
            raise RuntimeError(f"the function raised StopIteration for param {len(done)} of the chunk")
        return done

    def _forget_chunk(self) -> None:
        """In a child that the task forked: what follows in the chunk is its parent's, should it come back to it."""
        self._chunk.__setstate__(sys.maxsize)  # of a list's iterator, or a range's: it is at its end

    def _function(self, key: str) -> Any:
        functions = self.functions
        if key in functions:
            if len(functions) > 1:
                functions.move_to_end(key)
                for thing in self._brought[key]:
                    bring(thing)
            return functions[key]
        if key not in self._pickled_functions:
            raise RuntimeError("the server has lost the function of this task. Is its store damaged? Its log says more")
        function, self._brought[key] = bring_all(self._pickled_functions[key], loads)
        functions[key] = function
        if len(functions) > MAX_FUNCTIONS:
            forgotten, _ = functions.popitem(last=False)
            del self._brought[forgotten]
        return function

    def failure(self, task_id: str, error: BaseException, done: list[Any] | None = None) -> TaskEnded:
        """Return what is sent of a task that raised; of a chunk with the results it has."""
        try:
            pickled = dumps_exception(error)
            error_bases = names_of_bases(type(error))
            payload = dumps_chunk_failure(done, pickled.payload) if done else pickled.payload
        except BaseException as worse:  # memory is short, or a signal handler of the task raised
            name = type(error).__qualname__
            message = f"{name}; it could not be described: {type(worse).__qualname__}"
            return TaskEnded(task_id=task_id, is_successful=False, error_type=name, error_message=message)
        return TaskEnded(
            task_id=task_id,
            is_successful=False,
            payload=payload,
            error_type=pickled.error_type,
            error_message=pickled.error_message,
            traceback=pickled.traceback,
            error_bases=error_bases,
            imported=self.clock.take_costs(),
            searched=self.prepared.take_searched(),
        )

    def exit(self, request: SystemExit) -> NoReturn:
        """End this process as Python does for `sys.exit`."""
        code = request.code
        is_text = code is not None and not isinstance(code, int)
        number = 1 if is_text else int(code or 0) & 0xFF
        if os.getpid() != self.pid:
            if is_text:
                with suppress(OSError):
                    os.write(2, f"{code}\n".encode(errors="backslashreplace"))
            self.leave_child(number)
        if is_text:
            print(code, file=sys.stderr)
        output.flush()
        self.exit_cleanly(number)

    # --- messages -------------------------------------------------------------------------------------------------

    def get_connection(self) -> Connection:
        """Return the connection through which this process is a client; made when a task first asks for it.

        Raises:
            ServerUnreachable: this is a child that the task forked. The socket is its parent's: what it sent there
                would tear what that sends, and count as the task's.
        """
        if os.getpid() != self.pid:
            from palpable.units.task_exceptions import ServerUnreachable

            raise ServerUnreachable(
                "this process was forked by a task, and the line to the server is that of the task itself. Let the "
                "task ask, or use a Client here"
            )
        with self.lock:
            if self.connection is None:
                from palpable._connection.connection import Connection

                self.connection = Connection(
                    self.socket, reader=self._reader, inside_task=True, on_other=self._take_orders
                )
            return self.connection

    def send(self, message: Any) -> None:
        """Send a message of the running task (TaskSaid, TaskProgressed)."""
        if os.getpid() != self.pid:
            return  # a child that the task forked; the socket is its parent's
        if type(message) is TaskSaid:
            output.say(message.level, message.text)
        with self.lock:
            if self.connection is None:
                frame = encode_frame(message)
                self.said += 1
                self.socket.sendall(frame)
                return
        self.connection.send(message)

    def send_last(self, ended: TaskEnded) -> None:
        """Send the end of a task; end this process if that can't be done."""
        if os.getpid() != self.pid:
            os._exit(0)  # a child that the task forked; its parent answers
        try:
            try:
                with self.lock:
                    if self.connection is None:
                        frame = encode_frame(ended)
                        self.said += 1
                        self.socket.sendall(frame)
                        return
                self.connection.send(ended)
            except (FrameError, MemoryError) as error:  # the result is too large for a frame, or for a copy of it
                self.send(self.failure(ended.task_id, error))
        except OSError as error:
            output.report(f"the answer of this task could not be sent: {error}. Did it close file descriptors?")
            os._exit(1)

    def read_orders_for(self, claim: int) -> None:
        """Read until the task that was claimed is the first in the queue.

        A frame that is still in the socket may take back what is queued here. `claim` says how many such frames were
        sent before the claimed task was; it may also be older than what was read already.
        """

        def is_first() -> bool:
            return bool(self.orders) and not 0 < (claim - self.take_backs) % 256 < 128

        next_read_bytes = FIRST_READ_BYTES
        while not is_first():
            if self.connection is not None:
                self.connection.read_until(is_first)
                continue
            data = self.socket.recv(next_read_bytes)
            next_read_bytes = NEXT_READ_BYTES
            if not data:
                self.exit_cleanly(0)  # the server is gone, or has no use for this process any more
            for message in self._reader.feed(data):
                self._take_orders(message)

    def _take_orders(self, message: Any) -> None:
        """Queue the tasks of a `RunTasks`, after forgetting those it takes back."""
        if not isinstance(message, RunTasks):
            return
        for _ in range(message.taken_back):
            self.orders.pop()
        self.heard = message.heard
        self._pickled_functions.update(message.functions)
        self.orders.extend(message.tasks)
        if message.taken_back:
            self.take_backs = (self.take_backs + 1) % 256


def _out_of_the_way(fd: int) -> int:
    """Move a file descriptor to a high number (see `SOCKET_FD`); return that, or the old one if there is no room."""
    try:
        moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_PIPE_FD)
    except OSError:
        os.set_inheritable(fd, False)
        return fd
    os.close(fd)
    return moved


def _call_each(function: Callable[[Any], Any], params: Iterator[Any], done: list[Any]) -> None:
    """Append to `done` what `function` returns for each of `params`; on an error it holds the results until then.

    A StopIteration ends it as if there were no more params.
    """
    if type(function) is not FunctionType:
        done.extend(map(function, params))  # the fastest for what is not written in Python
        return
    # The interpreter calls a function of Python from a loop without a new C frame: 0.9 of `map` on 3.11, 0.5 on 3.13.
    with suppress(StopIteration):
        for param in params:
            done.append(function(param))
