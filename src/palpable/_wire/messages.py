"""The messages that cross a process boundary.

Every message is a frozen, tagged struct, sent as one frame (`framing`). Three conversations use them:

* client and server, over TCP or a Unix socket, after the handshake;
* server and task process, over the private socket pair of that process. A task process is also a client:
  it may send every request of the first section on its private socket, without a handshake;
* server and zygote, over the control socket of that zygote.

Compatibility: a new field has a default, a field never changes its type, a tag is never used again.
Payloads are opaque bytes here: only task processes and clients unpickle.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

PROTOCOL_VERSION = 1
"""Raised when two versions can no longer understand each other; compared in the handshake."""

Isolation = Literal["task", "worker"]
Form = Literal["call", "chunk", "procedure"]
Bytes = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""The server computes with what tasks say, and they may say anything."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The base of every message."""


# --- shared parts -----------------------------------------------------------------------------------------------


class TaskOptions(Message, frozen=True):
    """How a task is to be run; one for all the tasks of a `SubmitTasks`."""

    isolation: Isolation | None = None
    """None: the server's default."""
    timeout_seconds: float | None = None
    """Wall time an attempt may take. None: the server's `task_timeout_seconds`."""
    priority: int = 0
    """Higher runs earlier."""
    ends_with_client: bool = False
    """Cancel the task when the connection that submitted it closes."""
    is_followup: bool = False
    """List the task in `followup_task_ids` of the task that submits it."""
    retries: int = 0
    """Further attempts after one that raised or timed out."""
    backoff_seconds: float = 1.0
    """The wait before the first retry, at most; it doubles with each (full jitter)."""
    max_backoff_seconds: float = 300.0
    retry_on: tuple[str, ...] = ()
    """Retry only after errors of these classes, by "module.qualname", or of their subclasses. Empty: after any."""
    crash_retries: int = 0
    """Further attempts after one whose process died."""
    at_most_once: bool = False
    """Never run an attempt again of which it is not known whether it ran: the task ends as lost."""
    delay_seconds: float = 0.0
    """Not before this long after the server got it."""
    start_at: float | None = None
    """Not before this moment, UTC seconds since the epoch."""
    idempotency_key: str = ""
    """Shown in lists. The client makes the task id from it, so that the same key is the same task; its result is kept
    until the retention limits drop it."""
    name: str = ""
    """Shown in place of the function's name."""
    tags: tuple[str, ...] = ()
    set_to_default: tuple[str, ...] = ()
    """Fields that were set, to what is their default here. Of the others with that value, the server's own options for
    tasks fill in what they say."""


class TaskRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task to run.

    `form` says how `payload` is used:
        "call":       (args, kwargs) pickled; the function is named by `function_key`; runs `function(*args, **kwargs)`
        "chunk":      a list or range of params pickled; runs `[function(param) for param in params]`
        "procedure":  a pickled `Procedure`; `function_key` is ""; runs `procedure.run(messenger)`
    """

    task_id: str
    form: Form
    function_key: str
    """The hex BLAKE2b-128 digest of the pickled function, or ""."""
    payload: bytes
    name: str = ""
    """What people see in lists: the qualified name of the function or procedure class."""


class TaskReport(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the server knows of a task, result included: the answer to a question about it."""

    task_id: str
    state: str
    """One of `palpable._core.task_state.State`."""
    outcome: str = ""
    """Why it ended: "" (not ended), succeeded, error, timeout, crashed, cancelled, quit, rejected, lost."""
    payload: bytes | None = None
    """The pickled return value (succeeded) or the pickled exception (failed by its own exception); else None. For a
    chunk that failed, the results before the error too: see `chunk_failure`."""
    error_type: str = ""
    """Qualified name of the exception's class."""
    error_message: str = ""
    traceback: str = ""
    """The remote traceback, as text."""
    followup_task_ids: tuple[str, ...] = ()
    attempt: int = 0
    elapsed_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    exit_status: int | None = None
    """Exit code of the task's process; minus the signal number if a signal ended it; None if not known (yet)."""
    output_tail: str = ""
    """The last lines the task printed; only for outcomes other than succeeded."""


class TaskReturned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The end of most tasks: it has returned, and there is nothing else to say of it.

    A process that runs many tasks says it to the server (`returns`), in place of a `TaskEnded`. Of a task that returned
    in its first attempt the server hands it on to the client, in place of a `TaskReport`.
    """

    task_id: str
    payload: bytes
    """The pickled return value."""
    elapsed_seconds: Annotated[float, msgspec.Meta(ge=0.0)]
    cpu_seconds: float
    peak_memory_bytes: Bytes
    output_from: Bytes
    """As in `TaskEnded`."""
    output_to: Bytes
    number: int
    """See `returns`."""

    is_successful: ClassVar[bool] = True
    state: ClassVar[str] = "succeeded"
    outcome: ClassVar[str] = "succeeded"
    attempt: ClassVar[int] = 1
    error_type: ClassVar[str] = ""
    error_message: ClassVar[str] = ""
    error_bases: ClassVar[tuple[str, ...]] = ()
    traceback: ClassVar[str] = ""
    followup_task_ids: ClassVar[tuple[str, ...]] = ()
    exit_status: ClassVar[int | None] = None
    output_tail: ClassVar[str] = ""


Report = TaskReport | TaskReturned


# --- client to server -------------------------------------------------------------------------------------------


class SubmitTasks(Message, frozen=True, tag="submit"):
    """Accept these tasks. Answered by `TasksAccepted` (or `ResultsPushed.accepted`) or `RequestFailed`.

    Submitting an id that the server already knows changes nothing and is accepted (so that a client may send again).
    """

    request_id: int
    tasks: list[TaskRequest]
    functions: dict[str, bytes] = {}
    """Pickled functions by key; each is sent once per connection, before or with the first task that names it."""
    options: TaskOptions = TaskOptions()
    delivery: Literal["push", "none"] = "push"
    """push: the result is sent in a `ResultsPushed` when it is there, and removed once `ResultsReceived` says so.
    none: it is kept for a later query."""
    needs_exit: bool = False
    """Push only after the process is gone, so that the report holds exit status and usage."""


class ResultsReceived(Message, frozen=True, tag="received"):
    """The client holds every result up to push number `sequence` of this connection. Not answered."""

    sequence: int


class QueryResults(Message, frozen=True, tag="query"):
    """What became of these tasks? Answered by `ResultsFound`, once `mode` is satisfied or `wait_seconds` are over.

    take: finished results are removed from the server once `ResultsReceived` acknowledges the answer's `sequence`.
    """

    request_id: int
    task_ids: list[str]
    wait_seconds: float = 0.0
    """0: answer at once. Below 0: wait until the end."""
    take: bool = True


class BeginWait(Message, frozen=True, tag="wait"):
    """Sent from inside a task only: a thread of it now blocks until all (or any) of these tasks have ended.

    The task's slot is free meanwhile. Answered by `WaitOver` when they have ended *and* the task has a slot again;
    the thread goes on only then. Unknown ids count as ended. A wait for itself or an ancestor is a `RequestFailed`.
    """

    wait_id: int
    """Chosen like a request id; answered with `request_id=wait_id` on failure."""
    task_ids: list[str]
    needs: Literal["all", "any"] = "all"


class EndWait(Message, frozen=True, tag="unwait"):
    """Sent from inside a task only: the thread gave up that wait (its own timeout). Not answered."""

    wait_id: int


class WatchResults(Message, frozen=True, tag="watch"):
    """Push the results of these tasks over this connection, as if they had been submitted on it.

    Sent by a client that has connected again. Answered by `ResultsWatched`.
    """

    request_id: int
    task_ids: list[str]
    needs_exit: bool = False


class RetryTasks(Message, frozen=True, tag="retry"):
    """Submit what these tasks ran once more, each as a new task. Answered by `TasksRetried`.

    A final state is final: the old task stays as it is. Only tasks that failed or were cancelled, and are still kept,
    can be retried.
    """

    request_id: int
    task_ids: list[str]


class PurgeTasks(Message, frozen=True, tag="purge"):
    """Remove tasks in these final states that ended at least so long ago. Answered by `TasksPurged`."""

    request_id: int
    states: list[str]
    """Empty: every final state. A state that is not final is refused."""
    older_than_seconds: float = 0.0


class DrainServer(Message, frozen=True, tag="drain"):
    """Accept nothing new and start nothing more, but for what running tasks submit and wait for; or do so again.

    Answered by `Done` at once. `status` shows `is_draining` and how many tasks run.
    """

    request_id: int
    is_on: bool = True


class CancelTasks(Message, frozen=True, tag="cancel"):
    """End these tasks, running or not. Answered by `TasksCancelled`."""

    request_id: int
    task_ids: list[str]
    spares_running: bool = False
    """End only what has not begun."""


class ReadLogs(Message, frozen=True, tag="logs"):
    """Send what this task printed. Answered by one or more `LogChunk`, the last with `is_last`."""

    request_id: int
    task_id: str
    follow: bool = False
    """Go on as it prints, until it has ended."""


class StopReading(Message, frozen=True, tag="unlogs"):
    """The client no longer wants the `LogChunk`s of `request_id`. Not answered."""

    request_id: int


class ListTasks(Message, frozen=True, tag="tasks"):
    """Answered by `TaskList`, newest first."""

    request_id: int
    states: list[str] = []
    """Only tasks in one of these states; empty: all."""
    limit: int = 1000
    """So many at most; more than 10,000 are never sent."""
    task_ids: list[str] = []
    """Only these; empty: all."""
    before: int | None = None
    """Only tasks with a lower `TaskInfo.sequence`: the next page."""
    tags: list[str] = []
    """Only tasks that have all of these."""


class GetStatus(Message, frozen=True, tag="status"):
    """Answered by `StatusReport`."""

    request_id: int


class QuitServer(Message, frozen=True, tag="quit"):
    """Stop the server. Answered by `Done`, before it stops."""

    request_id: int
    drain_seconds: float | None = None
    """Let what runs end within this time, first. Sent again while it drains: what is smaller counts. None: at once."""


# --- server to client -------------------------------------------------------------------------------------------


class TasksAccepted(Message, frozen=True, tag="accepted"):
    """All tasks of that `SubmitTasks` are accepted: each will reach a final state."""

    request_id: int


class RequestFailed(Message, frozen=True, tag="failed"):
    """That request was refused as a whole; nothing of it was done."""

    request_id: int
    error: str
    """The name of a class of `palpable.units.task_exceptions`, or "ValueError"."""
    message: str


class ResultsPushed(Message, frozen=True, tag="push"):
    """Results of tasks submitted with delivery="push" on this connection."""

    sequence: int
    reports: list[TaskReport] = []
    returned: list[TaskReturned] = []
    """Those that ended before `reports`. Both lists are in the order in which the tasks ended."""
    accepted: list[int] = []
    """As a `TasksAccepted` for each of these requests, sent before this."""


class ResultsFound(Message, frozen=True, tag="found"):
    """Answer to `QueryResults`, in the order asked. None: no such task (unknown, expired, or already taken)."""

    request_id: int
    reports: list[TaskReport | None]
    sequence: int = 0
    """To acknowledge with `ResultsReceived` if not 0."""


class WaitOver(Message, frozen=True, tag="wait-over"):
    """Answer to `BeginWait`."""

    wait_id: int


class ResultsWatched(Message, frozen=True, tag="watched"):
    """Answer to `WatchResults`. Results of the others are pushed when they are there, or at once."""

    request_id: int
    unknown: list[str] = []
    """Tasks the server does not know: it never did, or has dropped them, or their results were taken."""


class TasksRetried(Message, frozen=True, tag="retried"):
    """Answer to `RetryTasks`, in the order asked: the ids of the new tasks; "" where nothing could be retried."""

    request_id: int
    new_task_ids: list[str]


class TasksPurged(Message, frozen=True, tag="purged"):
    """Answer to `PurgeTasks`: how many tasks were removed."""

    request_id: int
    count: int


class TasksCancelled(Message, frozen=True, tag="cancelled"):
    """In the order asked: True if the task was not final and is now cancelled."""

    request_id: int
    cancelled: list[bool]


class LogChunk(Message, frozen=True, tag="log"):
    """A piece of what a task printed."""

    request_id: int
    data: bytes
    is_last: bool = False
    is_known: bool = True
    """False: no such task."""


class TaskInfo(Message, frozen=True):
    """A task as lists show it; times are UTC, in seconds since the epoch."""

    task_id: str
    name: str
    state: str
    outcome: str = ""
    isolation: Isolation = "task"
    priority: int = 0
    depth: int = 0
    parent_id: str = ""
    is_waiting: bool = False
    attempt: int = 0
    submitted_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    elapsed_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    exit_status: int | None = None
    error_type: str = ""
    error_message: str = ""
    worker: str = ""
    pid: int | None = None
    progress: tuple[float, float, str] | None = None
    """done, total, note."""
    sequence: int = 0
    """Order of arrival."""
    due_at: float | None = None
    """Scheduled and retrying tasks do not start before this moment."""
    timeout_seconds: float | None = None
    retries: int = 0
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 300.0
    retry_on: tuple[str, ...] = ()
    crash_retries: int = 0
    at_most_once: bool = False
    idempotency_key: str = ""
    tags: tuple[str, ...] = ()
    is_taken: bool = False
    """Its result was handed over and removed."""
    followup_task_ids: tuple[str, ...] = ()


class TaskList(Message, frozen=True, tag="task-list"):
    request_id: int
    tasks: list[TaskInfo]


class StatusReport(Message, frozen=True, tag="status-report"):
    request_id: int
    status: dict[str, Any]


class Done(Message, frozen=True, tag="done"):
    request_id: int


# --- server to task process (besides the answers above) ---------------------------------------------------------


class TaskOrder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task to run now, in the order given."""

    task_id: str
    attempt: int
    form: Form
    function_key: str
    payload: bytes
    timeout_seconds: float | None = None
    name: str = ""
    """As in `TaskRequest`."""


class RunTasks(Message, frozen=True, tag="run"):
    """Run these, one after the other.

    The first frame that a task process gets is a `RunTasks`. With isolation "task" it holds one task, and the process
    exits after it. With "worker" the first frame carries two file descriptors: the read end of the *claim pipe*, and
    the write end of the *returns pipe* (`returns`). The server writes one byte into the claim pipe for every task it
    sends; the process reads one byte before it starts each task, and blocks there when there is none. So a task that
    was not claimed can be taken back by the server, which holds the read end too: the kernel decides who got it, and
    tasks taken back are always the last ones sent.

    The server sends a frame before it writes the bytes for the tasks in it, and each byte is the number of frames with
    `taken_back` sent to this process so far, modulo 256. So a process that claims knows whether a frame is on its way
    that takes back what it has queued, and reads that frame first.
    """

    tasks: list[TaskOrder]
    functions: dict[str, bytes] = {}
    isolation: Isolation = "task"
    taken_back: int = 0
    """Worker mode: before queueing `tasks`, forget this many of the unclaimed tasks sent last."""
    heard: int = 0
    """Worker mode: frames that the server has received from this process so far (see `returns`)."""
    token: str = ""
    """By it a client proves that it speaks from inside one of these tasks (`handshake`), which finds it in
    `PALPABLE_TASK_TOKEN`. The same in all that a process gets."""


# --- task process to server (besides the requests above) ---------------------------------------------------------


class TaskEnded(Message, frozen=True, tag="ended"):
    """The task came to its end inside its process: returned or raised."""

    task_id: str
    is_successful: bool
    payload: bytes | None = None
    """The pickled return value, or the pickled exception; None if that exception cannot be pickled. Of a chunk that
    failed, the results before the error too: see `chunk_failure`."""
    error_type: str = ""
    error_message: str = ""
    traceback: str = ""
    error_bases: tuple[str, ...] = ()
    """The exception's class and its bases, each as "module.qualname": what `TaskOptions.retry_on` is compared with."""
    cpu_seconds: float = 0.0
    """Worker mode: used by this task. Task mode: 0, the server takes it from wait4."""
    peak_memory_bytes: Bytes = 0
    """As above."""
    elapsed_seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Wall time the task took, as its process saw it."""
    imported: dict[str, float] = {}
    """Installed modules that this task imported anew, with the seconds that cost (see `import_costs`)."""
    searched: list[str] = []
    """Modules of its program that it had to search for (see `prepared_modules`)."""
    output_from: Bytes = 0
    """Worker mode: what this task printed is in the spool file from this byte"""
    output_to: Bytes = 0
    """to this one (not included). Task mode: 0, the whole file is its output."""


class TaskSaid(Message, frozen=True, tag="said"):
    """A message through the messenger, for the log files. level: DEBUG, INFO, WARNING, ERROR, PRINT."""

    task_id: str
    level: str
    text: str


class TaskProgressed(Message, frozen=True, tag="progress"):
    task_id: str
    done: float
    total: float
    note: str = ""


# --- zygote to server --------------------------------------------------------------------------------------------


class ZygoteReady(Message, frozen=True, tag="zygote-ready"):
    """The imports are done; forking may begin."""

    pid: int
    preloaded: list[str] = []
    refused: dict[str, str] = {}
    """Modules that were not preloaded, and why (starts a thread, ImportError, ...)."""
    source_files: dict[str, int] = {}
    """The files of preloaded modules that are not installed ones, with their modification times in nanoseconds."""


class ProcessesForked(Message, frozen=True, tag="forked"):
    """New idle task processes. One file descriptor for each travels along: the server's end of its sockets."""

    pids: list[int]
    spools: list[str]
    """The name of each one's output file, in the spool folder. A spool name is used again after its process is gone."""


class ProcessExit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one task process ended, from wait4."""

    pid: int
    exit_status: int
    """Exit code, or minus the signal number."""
    cpu_seconds: float
    peak_memory_bytes: int
    strays_killed: int = 0
    """Descendants that had outlived it, and were killed."""


class ProcessesExited(Message, frozen=True, tag="exited"):
    exits: list[ProcessExit]


class ProcessReplaced(Message, frozen=True, tag="replaced"):
    """A task process has ended, and another one was forked in its place, which uses the same spool file.

    The file descriptor that travels along is the server's end of the new one's sockets.
    """

    record: bytes
    """How the old one ended, and the new one's pid; see `_zygote/replacement.py`."""


# --- server to zygote --------------------------------------------------------------------------------------------


class KeepAlive(Message, frozen=True, tag="keep"):
    """Keep this many task processes alive, busy and idle together: fork whenever there are fewer. Never kills."""

    count: int


class EndProcess(Message, frozen=True, tag="end"):
    """Kill this process with its whole tree: SIGTERM to its group, after `grace_seconds` SIGKILL to it, and then to
    every stray."""

    pid: int
    grace_seconds: float = 0.0


class PrepareModules(Message, frozen=True, tag="prepare"):
    """Tasks import these modules: make ready what is needed for that, without running any of it."""

    modules: list[str]


ClientRequest = (
    SubmitTasks
    | ResultsReceived
    | QueryResults
    | WatchResults
    | BeginWait
    | EndWait
    | CancelTasks
    | RetryTasks
    | PurgeTasks
    | DrainServer
    | ReadLogs
    | StopReading
    | ListTasks
    | GetStatus
    | QuitServer
)
ServerAnswer = (
    TasksAccepted
    | RequestFailed
    | ResultsPushed
    | ResultsFound
    | ResultsWatched
    | WaitOver
    | TasksCancelled
    | TasksRetried
    | TasksPurged
    | LogChunk
    | TaskList
    | StatusReport
    | Done
)
FromTaskProcess = ClientRequest | TaskEnded | TaskSaid | TaskProgressed
ToTaskProcess = ServerAnswer | RunTasks
FromZygote = ZygoteReady | ProcessesForked | ProcessesExited | ProcessReplaced
ToZygote = KeepAlive | EndProcess | PrepareModules
