"""The history of a storm: everything that was written down, joined by label and task id.

Times are monotonic seconds; those of the store are brought to the same clock.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stress.storm.answers import FINAL, UNFINISHED
from stress.storm.event_log import read_events
from stress.storm.faults import SERVER_ENDS
from stress.storm.stored import StoredFile, StoredTask, read_store

Event = dict[str, Any]
ANY_KILL = SERVER_ENDS | {"kill zygote", "kill task process"}
"""Faults by which an attempt can end, or never begin."""
PURGE_SLACK_SECONDS = 0.05
"""A task notes its end before the server hears of it, and the server's clock and ours are read one after the other."""


def state_of(outcome: str) -> str:
    """Return the final state of tasks with that outcome."""
    return outcome if outcome in ("succeeded", "cancelled") else "failed"


class Told(NamedTuple):
    """What a client was told of a task, and when: it asked at `since` and had the answer at `at`."""

    label: str
    task_id: str
    by: str
    since: float
    at: float
    answer: str
    value: Any
    reconnects: bool = False
    """Whether it was a client that connects again by itself."""

    @property
    def is_final(self) -> bool:
        return self.answer in FINAL

    @property
    def says_accepted(self) -> bool:
        return self.is_final or self.answer == UNFINISHED


class Fault(NamedTuple):
    """What the nemesis did, and between which moments."""

    name: str
    began: float
    ended: float
    facts: Event


@dataclass
class History:
    """All that is known.

    Attributes:
        asked: by label, the event of the client that asked for it first.
        started, ended, crashed: events of tasks, by task id.
        utc_offset: what is added to monotonic seconds to get UTC seconds.
        aftermath: what was found after the end, in words.
    """

    asked: dict[str, Event] = field(default_factory=dict)
    submitted: dict[str, str] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    cancels: list[Event] = field(default_factory=list)
    failed_maps: list[Event] = field(default_factory=list)
    purges: dict[str, Event] = field(default_factory=dict)
    """By name; with `count`, and `ended`, the moment of the answer, if there was one."""
    retries: list[Event] = field(default_factory=list)
    """Likewise with what was answered: `new_task_id`, `why` and `ended`."""
    followed: list[Event] = field(default_factory=list)
    started: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    crashed: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    server_starts: list[Event] = field(default_factory=list)
    failed_starts: list[Event] = field(default_factory=list)
    client_failures: list[str] = field(default_factory=list)
    file: StoredFile = field(default_factory=StoredFile)
    utc_offset: float = 0.0
    aftermath: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tasks: dict[str, StoredTask] = {task.task_id: task for task in self.file.tasks}
        self._labels: dict[str, set[str]] | None = None

    # --- joining ------------------------------------------------------------------------------------------------------

    def told_by_task(self) -> dict[str, list[Told]]:
        """Return what was told of each task, in the order of the answers; of tasks whose id is known."""
        found: dict[str, list[Told]] = defaultdict(list)
        task_of = self._task_of_label()
        for told in sorted(self.told, key=lambda one: one.at):
            task_id = told.task_id or task_of.get(told.label, "")
            if task_id:
                found[task_id].append(told)
        return found

    def labels_of(self) -> dict[str, set[str]]:
        """Return the labels of each task: one, or those of a chunk."""
        found: dict[str, set[str]] = defaultdict(set)
        for label, task_id in self._task_of_label().items():
            found[task_id].add(label)
        return found

    def labels_of_task(self, task_id: str) -> set[str]:
        """Return the labels of one task."""
        if self._labels is None:
            self._labels = self.labels_of()
        return self._labels.get(task_id, set())

    def _task_of_label(self) -> dict[str, str]:
        found = {event["label"]: task_id for task_id, events in self.started.items() for event in events}
        found.update({told.label: told.task_id for told in self.told if told.task_id})
        return {**found, **self.submitted}

    # --- asking -------------------------------------------------------------------------------------------------------

    def struck(self, names: Iterable[str], since: float, until: float) -> Iterator[Fault]:
        """Yield the faults of these names that struck between two moments; a server's only if it ended."""
        wanted = set(names)
        for fault in self.faults:
            has_ended = fault.name not in SERVER_ENDS or fault.facts.get("pids")
            if fault.name in wanted and has_ended and fault.began <= until and fault.ended >= since:
                yield fault

    def purges_of(self, task_id: str, outcome: str = "") -> list[Event]:
        """Return the purges that may have removed a task.

        Those that were over only when it may have ended so long ago as they ask for.

        Args:
            outcome: how it ended; "": that is not known.
        """
        signs = [*self.started.get(task_id, ()), *self.ended.get(task_id, ())]
        alive_at = max((event["at"] for event in signs), default=0.0)
        return [
            purge
            for purge in self.purges.values()
            if alive_at <= purge.get("ended", math.inf) - purge["older_than_seconds"] + PURGE_SLACK_SECONDS
            and (not outcome or state_of(outcome) in purge["states"])
        ]

    def was_purged(self, task_id: str, outcome: str = "") -> bool:
        """Whether a task is not stored for that reason."""
        return task_id not in self.tasks and bool(self.purges_of(task_id, outcome))

    def monotonic(self, utc: float | None) -> float | None:
        """Return a moment of the store on the clock of the events."""
        return None if utc is None else utc - self.utc_offset

    def client_was_killed(self, label: str, since: float) -> bool:
        """Whether the client that asked for it was killed after that moment."""
        name = label.partition("-")[0].removesuffix("a")  # an asyncio client lives in the same process
        return any(
            fault.name == "kill client" and fault.ended >= since and fault.facts["client"] == name
            for fault in self.faults
        )


def read_history(folder: Path, store_path: Path) -> History:
    """Return what was written down in the folder of a storm, and what the store holds."""
    history = History(file=read_store(store_path))
    for path in sorted(folder.glob("client-*.jsonl")):
        for event in read_events(path):
            _add_client_event(history, path.stem, event)
    for event in read_events(folder / "tasks.jsonl"):
        places = {"started": history.started, "ended": history.ended, "crashes": history.crashed}
        places[event["event"]][event["task_id"]].append(event)
    for event in read_events(folder / "storm.jsonl"):
        history.utc_offset = event["utc"] - event["at"]
        if event["event"] == "struck":
            history.faults.append(Fault(event["fault"], event["from"], event["to"], event))
        elif event["event"] == "server up":
            history.server_starts.append(event)
        elif event["event"] == "start failed":
            history.failed_starts.append(event)
        elif event["event"] == "aftermath":
            history.aftermath.append(event["what"])
    return history


def _add_client_event(history: History, client: str, event: Event) -> None:
    match event["event"]:
        case "asked":
            history.asked.setdefault(event["label"], event)
        case "submitted":
            history.submitted[event["label"]] = event["task_id"]
        case "told":
            facts = {name: event[name] for name in Told._fields}
            value = event["value"]
            if not facts["task_id"] and isinstance(value, dict):
                facts["task_id"] = value["task_id"]
            history.told.append(Told(**facts))
        case "cancels" | "cancelled":
            history.cancels.append(event)
        case "purges":
            history.purges[event["purge"]] = event
        case "purged":
            history.purges[event["purge"]].update(count=event["count"], ended=event["at"])
        case "retries":
            history.retries.append(event)
        case "retried":
            asked = next(one for one in reversed(history.retries) if one["task_id"] == event["task_id"])
            asked.update(new_task_id=event["new_task_id"], why=event["why"], ended=event["at"])
        case "followed":
            history.followed.append(event)
        case "map failed":
            history.failed_maps.append(event)
        case "client failed":
            history.client_failures.append(f"{client}: {event['why']}")
