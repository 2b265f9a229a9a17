"""A task process played by a plain subprocess: what goes there and comes back is pickled as for the real one.

Used by scripts that a test writes to a folder and runs as `__main__`; `put_task_peer` puts this file beside them.
"""

from __future__ import annotations

import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO


def put_task_peer(folder: Path) -> None:
    """Make `from task_peer import TaskPeer` work for a script in `folder`."""
    shutil.copy(__file__, folder / "task_peer.py")


class TaskPeer:
    """Runs functions in a process of another kind of `__main__`, one after the other; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> TaskPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what `function` returns there; raise what it raises there."""
        from palpable._wire.messages import TaskReport
        from palpable._wire.payload import dumps_call, dumps_function, exception_of, result_of

        assert self._process.stdin and self._process.stdout
        _write(self._process.stdin, (dumps_function(function).data, dumps_call(args, kwargs)))
        outcome, *facts = _read(self._process.stdout)
        if outcome == "succeeded":
            return result_of(TaskReport("t", "succeeded", outcome, facts[0]))
        raise exception_of(TaskReport("t", "failed", outcome, *facts))


def _write(stream: BinaryIO, thing: Any) -> None:
    data = pickle.dumps(thing)
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


def _read(stream: BinaryIO) -> Any:
    size = stream.read(4)
    if not size:
        return None
    return pickle.loads(stream.read(struct.unpack("<I", size)[0]))


def _run_tasks() -> None:
    from palpable._wire.payload import dumps_exception, dumps_result, loads

    answers = sys.stdout.buffer
    sys.stdout = sys.stderr
    while (order := _read(sys.stdin.buffer)) is not None:
        function_data, call_data = order
        try:
            function = loads(function_data)
            args, kwargs = loads(call_data)
            _write(answers, ("succeeded", dumps_result(function(*args, **kwargs))))
        except BaseException as error:
            _write(answers, ("error", *dumps_exception(error)))


if __name__ == "__main__":
    _run_tasks()
