"""What must hold after every event: `validate` says what does not."""

from __future__ import annotations

from collections import Counter

from palpable._core.engine import Engine
from palpable._core.runner import Runner
from palpable._core.task_record import TaskRecord
from palpable._core.task_state import Outcome, State


def validate(engine: Engine) -> list[str]:
    """Return the invariants of the engine that do not hold, in words; an empty list if all is well."""
    return [*_slots(engine), *_runners(engine), *_tasks(engine), *_waits(engine), *_progress(engine)]


def _slots(engine: Engine) -> list[str]:
    dispatcher = engine.dispatcher
    occupied = [runner for runner in dispatcher.runners.values() if runner.slot is not None]
    faults = []
    if len(occupied) + dispatcher.slots.free_count != dispatcher.slots.count:
        faults.append(f"{len(occupied)} runners in slots and {dispatcher.slots.free_count} free slots do not add up")
    if len({runner.slot for runner in occupied}) != len(occupied):
        faults.append("two runners are in one slot")
    faults += [f"slot {r.slot} does not know runner {r.runner_id}" for r in occupied if not _is_in_its_slot(engine, r)]
    return faults


def _is_in_its_slot(engine: Engine, runner: object) -> bool:
    return any(runner is other for other in engine.dispatcher.slots.runners())


def _runners(engine: Engine) -> list[str]:
    faults = []
    waiting = sum(1 for runner in engine.dispatcher.runners.values() if runner.is_waiting)
    if waiting != engine.dispatcher.waiting_count:
        faults.append(f"{waiting} runners wait, {engine.dispatcher.waiting_count} are counted")
    for runner in engine.dispatcher.runners.values():
        name = f"runner {runner.runner_id}"
        for position, task in enumerate(runner.inbox):
            expected = State.RUNNING if position == 0 else State.READY
            if task.state is not expected:
                faults.append(f"{name}: task {position} of the inbox is {task.state}, not {expected}")
            if task.runner_id != runner.runner_id:
                faults.append(f"{name}: its task {task.task_id} thinks that it is elsewhere")
        if runner.is_waiting and runner.inbox and not runner.is_ending and runner.slot is not None:
            faults.append(f"{name} waits and occupies a slot")
        if runner in engine.dispatcher.warm and (runner.inbox or runner.slot is not None or runner.is_ending):
            faults.append(f"{name} is called warm and is not idle")
        if runner.isolation == "task" and len(runner.inbox) + len(runner.ended) > 1:
            faults.append(f"{name} was handed a second task")
    return faults


def _tasks(engine: Engine) -> list[str]:
    faults = []
    in_order = sorted((task.sequence for task in engine.tasks.values()), reverse=True)
    if [task.sequence for task in engine.arrivals.newest_first()] != in_order:
        faults.append("the order of arrival is not that of the sequence numbers")
    ready = 0
    for task in engine.tasks.values():
        if (task.finished_at is not None) != task.is_final:
            faults.append(f"task {task.task_id} is {task.state} with finished_at {task.finished_at}")
        if (task.outcome is not Outcome.NONE) != task.is_final:
            faults.append(f"task {task.task_id} is {task.state} with outcome {task.outcome!r}")
        if task.state is State.SCHEDULED and task.due_at is None:
            faults.append(f"task {task.task_id} is scheduled and never due")
        if task.state is State.RETRYING and (task.due_at is None) != (_left_behind(engine, task) is not None):
            faults.append(f"task {task.task_id} is to be run again at {task.due_at}, and so is not what it waits for")
        if task.state is State.RUNNING and engine.endings.runner_of(task) is None:
            faults.append(f"task {task.task_id} runs nowhere")
        if task.state is State.READY and task.runner_id is None:
            ready += 1
            if task.level is None:
                faults.append(f"task {task.task_id} is ready and not in the queue")
    counts = Counter(task.state for task in engine.tasks.values())
    if dict(counts) != engine.count_states():
        faults.append(f"there are {dict(counts)}, and {engine.count_states()} are counted")
    taken = sum(task.is_taken for task in engine.tasks.values())
    if taken != engine.retention.taken_count:
        faults.append(f"{taken} results were taken, {engine.retention.taken_count} are counted")
    if ready != len(engine.dispatcher.ready):
        faults.append(f"{ready} tasks are ready, the queue counts {len(engine.dispatcher.ready)}")
    return faults


def _left_behind(engine: Engine, task: TaskRecord) -> Runner | None:
    """The runner whose process is still there after an attempt of the task."""
    return next((runner for runner in engine.dispatcher.runners.values() if task in runner.ended), None)


def _waits(engine: Engine) -> list[str]:
    faults = [
        f"task {task.task_id} is {task.state} and wants a slot to go on"
        for task in engine.dispatcher.resuming
        if task.state is not State.RUNNING
    ]
    for task in engine.tasks.values():
        urgency = max((wait.task.depth + 1 for wait in task.waited_by or ()), default=0)
        if not task.is_final and task.urgency != urgency:
            faults.append(f"task {task.task_id} has urgency {task.urgency}, and those that wait for it say {urgency}")
        for wait in task.waits or ():
            if task.state is not State.RUNNING:
                faults.append(f"task {task.task_id} is {task.state} and waits")
            for waited_id in wait.remaining:
                waited = engine.tasks.get(waited_id)
                if waited is None or waited.is_final:
                    faults.append(f"task {task.task_id} waits for {waited_id}, which has ended")
    return faults


def _progress(engine: Engine) -> list[str]:
    """A free slot and something to put into it never stand side by side."""
    dispatcher = engine.dispatcher
    if engine.is_stopping or not dispatcher.slots.free_count:
        return []
    faults = []
    task = dispatcher.ready.first()
    if task is not None and (task.urgency or not engine.is_draining):
        faults.append("a slot is free and a task is ready")
    if dispatcher.resuming:
        faults.append("a slot is free and a task wants to go on")
    return faults
