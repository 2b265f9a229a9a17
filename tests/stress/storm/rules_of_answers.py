"""Rules of what clients were told: nothing accepted is lost, and no answer contradicts another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stress.storm.answers import REFUSED, SILENCE, UNFINISHED, UNKNOWN, UNREACHABLE
from stress.storm.finding import Finding
from stress.storm.history import History, Told
from stress.storm.stored import StoredTask

SILENCE_SECONDS = 60.0
"""A call that waited so long without an answer waited too long: no job takes more than a few seconds."""
RECONNECT_RULE = "a client that connects again was told it could not"
SLACK_SECONDS = 0.05
"""Two clocks are compared where a moment of the store and one of an event meet."""


def check_answers(history: History) -> Iterator[Finding]:
    """Yield what is wrong with what clients were told."""
    for task_id, told in history.told_by_task().items():
        task = history.tasks.get(task_id)
        if history.asked.get(told[0].label, {}).get("key") and history.purges_of(task_id):
            continue  # its key was free then, and there may have been another task under it
        yield from _nothing_is_lost(history, task_id, told, task)
        yield from _no_answer_contradicts_another(task_id, told, task)
        yield from _nothing_final_is_taken_back(task_id, told)
        yield from _nothing_known_is_forgotten(history, task_id, told, task)
        yield from _nothing_refused_is_accepted(history, task_id, told, task)
        yield from _taken_means_told(history, task_id, told, task)
    yield from _cancels_are_kept(history)
    yield from _no_silence(history)
    yield from _breaks_are_nobodys_business(history)
    yield from _maps_fail_for_a_reason(history)


def _nothing_is_lost(history: History, task_id: str, told: list[Told], task: StoredTask | None) -> Iterator[Finding]:
    accepted = next((one for one in told if one.says_accepted), None)
    if accepted is not None and task is None:
        outcome = next((one.answer for one in told if one.is_final), "")
        if history.was_purged(task_id, outcome):
            return
        yield Finding("an accepted task is lost", f"{task_id} ({accepted.label}): told {accepted.answer!r}, not stored")
    elif accepted is not None and task is not None and task.finished_at is None:
        yield Finding("an accepted task did not end", f"{task_id} ({accepted.label}): it is {task.state}")


def _no_answer_contradicts_another(task_id: str, told: list[Told], task: StoredTask | None) -> Iterator[Finding]:
    finals = [one for one in told if one.is_final]
    for one in finals:
        first = finals[0]
        if one.answer != first.answer:
            yield Finding("two answers differ", f"{task_id}: {first.answer} by {first.by}, {one.answer} by {one.by}")
        # Each job of a chunk has a value of its own.
        first = next(other for other in finals if other.label == one.label)
        if _value(one) != _value(first):
            yield Finding("two values differ", f"{task_id}: {first.value} by {first.by}, {one.value} by {one.by}")
        if task is not None and task.finished_at is not None and one.answer != task.outcome:
            yield Finding(
                "an answer differs from the store", f"{task_id}: told {one.answer} by {one.by}, stored {task.outcome}"
            )
    value = _value(finals[0]) if finals else None
    if task is not None and isinstance(task.value, dict) and value is not None and value != task.value:
        yield Finding("a value differs from the store", f"{task_id}: told {value}, stored {task.value}")


def _value(one: Told) -> Any:
    """What it returned or raised. Texts of errors hold facts that are learned later, such as usage."""
    return one.value if isinstance(one.value, dict) else None


def _nothing_final_is_taken_back(task_id: str, told: list[Told]) -> Iterator[Finding]:
    final = next((one for one in told if one.is_final), None)
    for one in told:
        if final is not None and one.answer == UNFINISHED and one.since > final.at:
            yield Finding(
                "an end is taken back",
                f"{task_id}: {final.answer} by {final.by}, unfinished {one.at - final.at:.3f} s later",
            )


def _nothing_known_is_forgotten(
    history: History, task_id: str, told: list[Told], task: StoredTask | None
) -> Iterator[Finding]:
    known = next((one for one in told if one.says_accepted), None)
    is_taken = task is not None and task.is_taken
    for one in told:
        if one.answer == UNKNOWN and known is not None and one.since > known.at and not is_taken:
            if history.purges_of(task_id):
                continue
            yield Finding(
                "a known task is forgotten",
                f"{task_id} ({one.label}): {known.answer}, {one.at - known.at:.3f} s later unknown",
            )


def _nothing_refused_is_accepted(
    history: History, task_id: str, told: list[Told], task: StoredTask | None
) -> Iterator[Finding]:
    for one in told:
        if one.answer != REFUSED:
            continue
        if history.asked.get(one.label, {}).get("key"):  # others may submit it, too
            if any(other.says_accepted and other.at < one.since for other in told):
                yield Finding("a known task is refused", f"{task_id} ({one.label}): {one.value}")
        elif task is not None:
            yield Finding("a refused task was accepted", f"{task_id} ({one.label}): {one.value}; it is {task.state}")


def _taken_means_told(history: History, task_id: str, told: list[Told], task: StoredTask | None) -> Iterator[Finding]:
    if task is None or not task.is_taken or any(one.is_final for one in told):
        return
    label = told[0].label
    asked = history.asked.get(label)
    if asked is None or asked["call"] in ("map", "imap"):  # a map that failed is given up, with all its results
        return
    if not history.client_was_killed(label, asked["at"]):
        yield Finding("a result was taken by nobody", f"{task_id} ({label}), asked for by {asked['call']}")


def _cancels_are_kept(history: History) -> Iterator[Finding]:
    for event in history.cancels:
        task_id, task = event["task_id"], history.tasks.get(event["task_id"])
        if event["event"] != "cancelled":
            continue
        if event["is_cancelled"]:
            if history.was_purged(task_id, "cancelled"):
                continue
            if task is None or task.outcome != "cancelled":
                how = "not stored" if task is None else task.outcome or task.state
                yield Finding("a cancel was said to be done, and was not", f"{task_id} ({event['label']}): {how}")
            continue
        later = [start for start in history.started.get(task_id, ()) if start["at"] > event["at"]]
        if later:
            yield Finding(
                "a task ran after its cancel came too late",
                f"{task_id} ({event['label']}): attempt {later[0]['attempt']}",
            )
        finished_at = history.monotonic(task.finished_at) if task is not None else None
        was_known = any(one.says_accepted and one.at < event["since"] for one in history.told if one.task_id == task_id)
        if was_known and finished_at is not None and finished_at > event["at"] + SLACK_SECONDS:
            yield Finding("a cancel said it came too late, and did not", f"{task_id} ({event['label']})")


def _breaks_are_nobodys_business(history: History) -> Iterator[Finding]:
    """The server is never away for as long as a client tries to connect again."""
    for one in history.told:
        if one.reconnects and one.answer == UNREACHABLE:
            yield Finding(RECONNECT_RULE, f"{one.task_id} ({one.label}) by {one.by}: {one.value}")
    for event in history.failed_maps:
        if event["reconnects"] and event["answer"] == UNREACHABLE:
            yield Finding(RECONNECT_RULE, f"{event['by']} of {event['labels'][0]}: {event['value']}")


def _maps_fail_for_a_reason(history: History) -> Iterator[Finding]:
    """The jobs of a map fail only when their process is killed; a map can be refused, and its connection can break."""
    for event in history.failed_maps:
        was_killed = any(history.struck({"kill zygote", "kill task process"}, event["since"], event["at"]))
        if event["answer"] not in (REFUSED, UNREACHABLE, SILENCE) and not (event["answer"] == "crashed" and was_killed):
            what = f"{event['by']} of {event['labels'][0]}: {event['answer']}, {event['value']}"
            yield Finding("a map failed without a reason", what)


def _no_silence(history: History) -> Iterator[Finding]:
    for one in history.told:
        if one.answer == SILENCE and one.at - one.since > SILENCE_SECONDS:
            yield Finding("a client was told nothing", f"{one.task_id} ({one.label}) by {one.by}")
    for event in history.failed_maps:
        if event["answer"] == SILENCE:
            yield Finding("a client was told nothing", f"a map of {event['labels'][0]}")
    for failure in history.client_failures:
        yield Finding("a client met an error that no fault explains", failure)
