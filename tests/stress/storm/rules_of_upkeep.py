"""Rules of what clients do about tasks that are there: purge, retry, and follow what they print."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from stress.storm.answers import FINAL
from stress.storm.finding import Finding
from stress.storm.history import History, Told, state_of

ASKED_OF_THE_SERVER = frozenset({"query, kept", "query, taken", "result", "audit", "async query"})
"""Answers that only the server can give: the result of a future may have been there for long."""
SLACK_SECONDS = 0.1
_LINE = re.compile(r"output of (\S+) attempt (\d+) pid (\d+)")


def check_upkeep(history: History) -> Iterator[Finding]:
    """Yield what is wrong with purges, retries and followed logs."""
    told_by_task = history.told_by_task()
    yield from _what_is_purged_stays_away(history, told_by_task)
    yield from _retries_make_one_task(history, told_by_task)
    yield from _nothing_runs_that_nobody_asked_for(history)
    yield from _logs_are_those_of_the_task(history)


def _what_is_purged_stays_away(history: History, told_by_task: dict[str, list[Told]]) -> Iterator[Finding]:
    """A task that had ended long enough before a purge that was answered is unknown afterwards."""
    for task_id, told in told_by_task.items():
        final = next((one for one in told if one.is_final), None)
        if final is None or history.asked.get(final.label, {}).get("key"):
            continue
        for purge in history.purges.values():
            ended = purge.get("ended", math.inf)
            is_meant = state_of(final.answer) in purge["states"]
            if not is_meant or final.at + purge["older_than_seconds"] + SLACK_SECONDS > purge["at"]:
                continue
            later = [one for one in told if one.by in ASKED_OF_THE_SERVER and one.answer in FINAL and one.since > ended]
            if later or (task_id in history.tasks and ended < math.inf):
                yield Finding("a purged task is there", f"{task_id} ({final.label}), purged at {ended:.3f}")
                break


def _retries_make_one_task(history: History, told_by_task: dict[str, list[Told]]) -> Iterator[Finding]:
    for event in history.retries:
        task_id, new_id = event["task_id"], event.get("new_task_id")
        case = f"{task_id} ({event['label']})"
        finals = [one.answer for one in told_by_task.get(task_id, ()) if one.is_final]
        if "ended" not in event or event.get("why"):
            continue
        if new_id is None:
            may_be_gone = history.purges_of(task_id) or task_id not in history.tasks
            if finals and finals[0] != "succeeded" and not may_be_gone:
                yield Finding("a retry was refused without a reason", f"{case}: it was {finals[0]}")
            continue
        if finals and finals[0] == "succeeded":
            yield Finding("a task was retried that had succeeded", case)
        if new_id not in history.tasks and not history.was_purged(new_id):
            yield Finding("a retried task is lost", f"{case}: {new_id} is not stored")


def _nothing_runs_that_nobody_asked_for(history: History) -> Iterator[Finding]:
    """As many tasks run under a label as were asked for: one, and one for each retry, which is never asked again."""
    tasks_of: dict[str, set[str]] = defaultdict(set)
    for task_id, events in history.started.items():
        for event in events:
            tasks_of[event["label"]].add(task_id)
    retries = Counter(event["label"] for event in history.retries)
    for label, task_ids in tasks_of.items():
        if label not in history.asked or history.asked[label].get("key"):
            continue
        allowed = 1 + retries[label]
        if len(task_ids) > allowed:
            yield Finding("a task ran that nobody asked for", f"{label}: {len(task_ids)} tasks, {allowed} asked for")


def _logs_are_those_of_the_task(history: History) -> Iterator[Finding]:
    for event in history.followed:
        task_id, label, text = event["task_id"], event["label"], event["text"]
        lines = [(match[1], int(match[2]), int(match[3])) for match in _LINE.finditer(text)]
        if any(line[0] != label for line in lines):
            yield Finding("a followed log holds what another task printed", f"{task_id} ({label}): {text[:200]!r}")
        if len(set(lines)) < len(lines):
            yield Finding("a followed log says something twice", f"{task_id} ({label}): {text[:200]!r}")
        task = history.tasks.get(task_id)
        if task is None or task.outcome != "succeeded":
            continue
        # What an attempt printed that was interrupted may be gone with its server; that of the last one is there.
        printed = {
            (end["label"], end["attempt"], end["pid"])
            for end in history.ended.get(task_id, ())
            if end["how"] == "returned" and end["attempt"] == task.attempt
        }
        if not printed <= set(lines):
            yield Finding("a followed log has gaps", f"{task_id} ({label}): {text[:200]!r}")
