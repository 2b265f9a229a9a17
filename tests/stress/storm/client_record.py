"""What a client writes down: what it asked for, and what it was told.

Runs in: clients. One file for each client; whoever takes the place of one that was killed goes on in the same file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from stress.storm.answers import FINAL, REFUSED, UNKNOWN, answer_of
from stress.storm.event_log import EventLog, read_events
from stress.storm.workload import Wish

SETTLED = FINAL | {UNKNOWN, REFUSED}


class Unanswered(NamedTuple):
    """Something asked for, of which it is not known how it ended.

    Attributes:
        task_id: "" if it is not known.
        key: the idempotency key, "" if there is none.
    """

    label: str
    task_id: str
    key: str
    event: dict[str, Any]


class ClientRecord:
    """The file of one client, and the labels it gives out.

    Args:
        reconnects: whether the client connects again by itself, so that no break should be its user's business.
    """

    def __init__(self, path: Path, name: str, *, reconnects: bool = False) -> None:
        self.name = name
        self.reconnects = reconnects
        self.log = EventLog(path)
        self._path = path
        self._generation = sum(1 for event in read_events(path) if event["event"] == "born")
        self._numbers = itertools.count(1)

    def new_label(self) -> str:
        """Return a label that no other client gives out, nor a predecessor of this one. Safe in threads."""
        return f"{self.name}-{self._generation}-{next(self._numbers)}"

    def asked(self, wish: Wish, call: str, key: str = "") -> None:
        """Note, before it is done, what is asked for."""
        options = {**wish.options, "kind": wish.job.kind, "seconds": wish.job.seconds}
        self.log.write("asked", label=wish.job.label, call=call, options=options, key=key)

    def submitted(self, label: str, task_id: str) -> None:
        """Note the id that a task got."""
        self.log.write("submitted", label=label, task_id=task_id)

    def told(self, label: str, task_id: str, by: str, since: float, answer: str, value: Any) -> None:
        """Note what was said of a task, by which call, and when that call began."""
        said = {"by": by, "since": since, "answer": answer, "value": value, "reconnects": self.reconnects}
        self.log.write("told", label=label, task_id=task_id, **said)

    def told_of_all(self, labels: list[str], by: str, since: float, answer: str, value: Any) -> None:
        """Note that a call failed that was about many tasks: it says something of one of them, and not of which."""
        said = {"by": by, "since": since, "answer": answer, "value": value, "reconnects": self.reconnects}
        self.log.write("map failed", labels=labels, **said)

    def tell(self, label: str, task_id: str, by: str, call: Callable[[], Any]) -> str:
        """Make a call whose result is that of the task, note what it said, and return that in a word."""
        since = time.monotonic()
        answer, value = answer_of(call)
        self.told(label, task_id, by, since, answer, value)
        return answer

    def cancelled(self, label: str, task_id: str, since: float, is_cancelled: bool) -> None:
        """Note what a cancel said."""
        self.log.write("cancelled", label=label, task_id=task_id, since=since, is_cancelled=is_cancelled)

    def purges(self, states: list[str], older_than_seconds: float) -> int:
        """Note, before it is done, a purge; return its number."""
        number = next(self._numbers)
        name = f"{self.name}-{self._generation}-{number}"
        self.log.write("purges", purge=name, states=states, older_than_seconds=older_than_seconds)
        return number

    def purged(self, number: int, since: float, count: int) -> None:
        """Note what a purge said."""
        self.log.write("purged", purge=f"{self.name}-{self._generation}-{number}", since=since, count=count)

    def retries(self, label: str, task_id: str) -> None:
        """Note, before it is done, that a task is to be run again as a new one."""
        self.log.write("retries", label=label, task_id=task_id)

    def retried(self, label: str, task_id: str, since: float, new_task_id: str | None, why: str = "") -> None:
        """Note what that said: the id of the new task; None, with `why` if it was refused."""
        self.log.write("retried", label=label, task_id=task_id, since=since, new_task_id=new_task_id, why=why)

    def followed(self, label: str, task_id: str, since: float, text: str) -> None:
        """Note what a task printed, as its client saw it, to the end."""
        self.log.write("followed", label=label, task_id=task_id, since=since, text=text)

    def unanswered(self) -> list[Unanswered]:
        """Return what this client or one before it under its name was not told the end of, and can still ask for."""
        asked: dict[str, dict[str, Any]] = {}
        task_ids: dict[str, str] = {}
        settled = set()
        for event in read_events(self._path):
            if event["event"] == "asked":
                asked[event["label"]] = event
            elif event["event"] == "submitted":
                task_ids[event["label"]] = event["task_id"]
            elif event["event"] == "told" and event["answer"] in SETTLED:
                settled.add(event["label"])
        return [
            Unanswered(label, task_ids.get(label, ""), event["key"], event)
            for label, event in asked.items()
            if label not in settled and (label in task_ids or event["key"])
        ]
