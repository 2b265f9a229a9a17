"""The log files under the logging folder.

Runs in: the server process. A full disk costs log lines, never a task: a line that can't be written is counted.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import time

LOG_FILE_BYTES = 20 << 20
LOG_FILE_COUNT = 5


class _PatientHandler(logging.handlers.RotatingFileHandler):
    """Counts the lines it could not write, and says how many once it can again."""

    lost = 0

    def handleError(self, record: logging.LogRecord) -> None:
        self.lost += 1
        if self.stream is not None:
            # What is left in the buffer would fail again at the next line, and at the end.
            stream, self.stream = self.stream, None
            try:
                stream.close()
            except OSError:
                pass  # the lost line is counted already

    def emit(self, record: logging.LogRecord) -> None:
        lost = self.lost
        super().emit(record)
        if lost and self.lost == lost:
            self.lost = 0
            super().emit(
                logging.LogRecord(
                    record.name, logging.ERROR, "", 0, "%d log lines before this could not be written", (lost,), None
                )
            )


class LogFiles:
    """`server.log`, what the server did; `tasks.log`, what tasks said through their messengers.

    Both rotate at 20 MiB, five files each.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._handlers = [
            self._open("palpable.server", os.path.join(folder, "server.log")),
            self._open("palpable.tasks", os.path.join(folder, "tasks.log")),
        ]

    def _open(self, name: str, path: str) -> logging.Handler:
        handler = _PatientHandler(
            path,
            maxBytes=LOG_FILE_BYTES,
            backupCount=LOG_FILE_COUNT - 1,
            encoding="utf-8",
            errors="replace",
            delay=True,
        )
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG if name.endswith("tasks") else logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        return handler

    def close(self) -> None:
        for name, handler in zip(("palpable.server", "palpable.tasks"), self._handlers, strict=True):
            logging.getLogger(name).removeHandler(handler)
            try:
                handler.close()
            except OSError:
                pass  # nothing is left to be told of a disk that is full
