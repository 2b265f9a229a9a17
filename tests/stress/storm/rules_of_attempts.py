"""Rules of what ran: no attempt twice, none beside another, none without a reason, and no end without a cause."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from stress.storm.behaviours import line_of
from stress.storm.faults import SERVER_ENDS
from stress.storm.finding import Finding
from stress.storm.history import ANY_KILL, Event, History
from stress.storm.server_keeper import GRACE_SECONDS
from stress.storm.stored import StoredTask

SLACK_SECONDS = 0.25
"""Between a kill and what is seen of it: a task notes its start a moment after the server has decided it."""
AFTER_END_SECONDS = GRACE_SECONDS + 1.0
"""A process that is told to end may begin for so long what it was handed before."""


def check_attempts(history: History) -> Iterator[Finding]:
    """Yield what is wrong with what ran."""
    for task_id, events in history.started.items():
        task = history.tasks.get(task_id)
        if history.asked.get(events[0]["label"], {}).get("key") and history.purges_of(task_id):
            continue  # its key was free then, and there may have been another task under it
        yield from _started_once(task_id, events)
        yield from _alone(events)
        if history.was_purged(task_id):
            continue
        if task is None:
            yield Finding("a task ran that is not stored", f"{task_id} ({events[0]['label']})")
            continue
        yield from _recorded(history, task, events)
    for task in history.file.tasks:
        events = history.started.get(task.task_id, [])
        yield from _each_attempt_has_a_reason(history, task, events)
        yield from _each_attempt_was_seen(history, task, events)
        yield from _the_end_has_a_cause(history, task, events)
        yield from _output_is_kept(history, task, events)
        yield from _followups_are_there(history, task)


def _started_once(task_id: str, events: list[Event]) -> Iterator[Finding]:
    seen = set()
    for event in events:
        attempt = event["attempt"], event["label"]
        if attempt in seen:
            yield Finding("an attempt started twice", f"{task_id} ({event['label']}), attempt {event['attempt']}")
        seen.add(attempt)


def _alone(events: list[Event]) -> Iterator[Finding]:
    for event in events:
        if not event["is_alone"]:
            yield Finding(
                "an attempt met what was left of the one before",
                f"{event['task_id']} ({event['label']}), attempt {event['attempt']}",
            )


def _recorded(history: History, task: StoredTask, events: list[Event]) -> Iterator[Finding]:
    finished_at = history.monotonic(task.finished_at)
    for event in events:
        if event["attempt"] > task.attempt:
            yield Finding(
                "an attempt ran that is not recorded",
                f"{task.task_id}: attempt {event['attempt']}, stored {task.attempt}",
            )
        if task.policy.get("at_most_once") and event["attempt"] > 1:
            yield Finding("an at-most-once task ran twice", f"{task.task_id} ({event['label']})")
        if finished_at is not None and event["at"] > finished_at + AFTER_END_SECONDS:
            yield Finding(
                "a task ran after its end",
                f"{task.task_id} ({event['label']}): attempt {event['attempt']}, {event['at'] - finished_at:.3f} s "
                f"after it was {task.outcome}",
            )


def _starts(events: list[Event]) -> dict[int, float]:
    """Return when each attempt started; of a chunk its first job counts."""
    found: dict[int, float] = {}
    for event in events:
        found[event["attempt"]] = min(event["at"], found.get(event["attempt"], event["at"]))
    return found


def _submitted(history: History, task: StoredTask) -> float:
    return history.monotonic(task.submitted_at) or 0.0


def _each_attempt_has_a_reason(history: History, task: StoredTask, events: list[Event]) -> Iterator[Finding]:
    """A further attempt follows a failure that may be retried, or the end of a server."""
    starts = _starts(events)
    numbers = sorted(starts)
    may_retry = task.policy.get("retries", 0) or task.policy.get("crash_retries", 0)
    for earlier, later in pairwise(numbers):
        since, until = starts[earlier] - SLACK_SECONDS, starts[later]
        was_interrupted = any(history.struck(SERVER_ENDS, since, until))
        raised = any(
            end["attempt"] == earlier and end["how"] == "raised" for end in history.ended.get(task.task_id, ())
        )
        crashed = any(crash["attempt"] == earlier for crash in history.crashed.get(task.task_id, ()))
        was_killed = any(history.struck({"kill zygote", "kill task process"}, since, until))
        if not was_interrupted and not (may_retry and (raised or crashed or was_killed)):
            yield Finding(
                "an attempt without a reason",
                f"{task.task_id}: attempt {later} {until - since:.3f} s after attempt {earlier}, policy {task.policy}",
            )
    if task.errors > task.policy.get("retries", 0) + 1 or task.crashes > task.policy.get("crash_retries", 0) + 1:
        yield Finding("more retries than allowed", f"{task.task_id}: {task.errors} errors, {task.crashes} crashes")


def _each_attempt_was_seen(history: History, task: StoredTask, events: list[Event]) -> Iterator[Finding]:
    """An attempt that was recorded and not seen to start was killed before it could say so."""
    starts = _starts(events)
    finished_at = history.monotonic(task.finished_at)
    for number in range(1, task.attempt + 1):
        if number in starts:
            continue
        before = [at for attempt, at in starts.items() if attempt < number]
        after = [at for attempt, at in starts.items() if attempt > number]
        since = max(before, default=_submitted(history, task)) - SLACK_SECONDS
        until = min(after, default=finished_at if finished_at is not None else float("inf")) + SLACK_SECONDS
        is_last = number == task.attempt
        if is_last and task.outcome in ("cancelled", "timeout"):
            continue
        if not any(history.struck(ANY_KILL, since, until)):
            yield Finding(
                "an attempt was recorded, and did not run", f"{task.task_id}: attempt {number} of {task.attempt}"
            )


def _the_end_has_a_cause(history: History, task: StoredTask, events: list[Event]) -> Iterator[Finding]:
    task_id, outcome = task.task_id, task.outcome
    since = min([_submitted(history, task), *_starts(events).values()]) - SLACK_SECONDS
    until = (history.monotonic(task.finished_at) or 0.0) + SLACK_SECONDS
    ends = [end for end in history.ended.get(task_id, ()) if end["attempt"] == task.attempt]
    if task.finished_at is None:
        yield Finding("a stored task did not end", f"{task_id}: it is {task.state}")
    elif outcome == "succeeded" and not any(end["how"] == "returned" for end in ends):
        yield Finding("a task succeeded that did not return", f"{task_id}: attempt {task.attempt}")
    elif outcome == "error" and not any(end["how"] == "raised" for end in ends):
        yield Finding("a task failed that did not raise", f"{task_id}: attempt {task.attempt}")
    elif outcome == "crashed":
        by_itself = any(crash["attempt"] == task.attempt for crash in history.crashed.get(task_id, ()))
        if not by_itself and not any(history.struck({"kill zygote", "kill task process"}, since, until)):
            yield Finding("a task crashed that nobody killed", f"{task_id}: attempt {task.attempt}")
    elif outcome == "lost":
        if not task.policy.get("at_most_once"):
            yield Finding("a task is lost that could have run again", task_id)
        elif not any(history.struck(SERVER_ENDS, since, until + AFTER_END_SECONDS)):
            yield Finding("a task is lost without the end of a server", task_id)
    elif outcome == "cancelled" and not _may_be_cancelled(history, task):
        yield Finding("a task was cancelled that nobody cancelled", task_id)
    elif outcome in ("quit", "rejected"):
        yield Finding(f"a task was {outcome}", task_id)


def _may_be_cancelled(history: History, task: StoredTask) -> bool:
    if task.parent_id or task.policy.get("ends_with_client"):
        return True
    if any(event["task_id"] == task.task_id for event in history.cancels):
        return True
    # A map that fails cancels the rest; so does one whose client is killed in the middle of doing so.
    labels = history.labels_of_task(task.task_id)
    calls = {history.asked[label]["call"] for label in labels if label in history.asked}
    return bool(calls & {"map", "imap", "run"}) or not labels


def _output_is_kept(history: History, task: StoredTask, events: list[Event]) -> Iterator[Finding]:
    if task.outcome != "succeeded" or not isinstance(task.value, dict):
        return
    if any(event["kind"] == "printing" for event in events) and line_of(task.value).encode() not in task.output:
        yield Finding(
            "what a task printed is lost", f"{task.task_id}: attempt {task.attempt}, kept {task.output[-80:]!r}"
        )


def _followups_are_there(history: History, task: StoredTask) -> Iterator[Finding]:
    followups = task.value.get("followups", ()) if isinstance(task.value, dict) else ()
    missing = [one for one in followups if one not in history.tasks and not history.was_purged(one)]
    since = _submitted(history, task)
    if missing and not any(
        fault.name == "fill disk"
        and fault.began <= (history.monotonic(task.finished_at) or 0.0)
        and fault.ended >= since
        for fault in history.faults
    ):
        yield Finding("a follow-up is lost", f"{missing[0]}, submitted by {task.task_id}")
