"""What the file of the store holds in the end.

Read with SQLite alone: the checker trusts no code of the server.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stress.storm.behaviours import JobFailed


@dataclass
class StoredTask:
    """A row of the store; times in UTC seconds.

    Attributes:
        value: what the stored result holds: what was returned, or `value` of a `JobFailed`; None if it holds neither.
        has_result: whether there is a result at all.
    """

    sequence: int
    task_id: str
    state: str
    outcome: str
    attempt: int = 1
    priority: int = 0
    depth: int = 0
    parent_id: str = ""
    is_taken: bool = False
    submitted_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    errors: int = 0
    crashes: int = 0
    policy: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    has_result: bool = False
    output: bytes = b""

    @property
    def isolation(self) -> str:
        return str(self.policy.get("isolation", "task"))


@dataclass
class StoredFile:
    """All of it.

    Attributes:
        problems: what is wrong with the file as such.
    """

    tasks: list[StoredTask] = field(default_factory=list)
    boots: int = 0
    problems: list[str] = field(default_factory=list)


_TASKS = """
SELECT sequence, task_id, state, outcome, attempt, priority, depth, parent_id, is_taken, submitted_at, started_at,
    finished_at, errors, crashes, policy FROM tasks JOIN states USING (sequence) ORDER BY sequence
"""
_ORPHANS = {
    "states without a task": "SELECT sequence FROM states WHERE sequence NOT IN (SELECT sequence FROM tasks)",
    "tasks without a state": "SELECT sequence FROM tasks WHERE sequence NOT IN (SELECT sequence FROM states)",
    "results without a task": "SELECT sequence FROM results WHERE sequence NOT IN (SELECT sequence FROM tasks)",
    "outputs without a task": "SELECT sequence FROM outputs WHERE sequence NOT IN (SELECT sequence FROM tasks)",
    "requests without a task": "SELECT sequence FROM requests WHERE sequence NOT IN (SELECT sequence FROM tasks)",
    "results of tasks that have not ended": "SELECT sequence FROM results JOIN states USING (sequence) "
    "WHERE finished_at IS NULL",
    "results that were taken, and are there": "SELECT sequence FROM results JOIN states USING (sequence) "
    "WHERE is_taken",
    "tasks that succeeded without a result": "SELECT sequence FROM states WHERE state = 'succeeded' AND NOT is_taken "
    "AND sequence NOT IN (SELECT sequence FROM results)",
    "requests of tasks that succeeded": "SELECT sequence FROM requests JOIN states USING (sequence) "
    "WHERE state = 'succeeded'",
    "task ids that are there twice": "SELECT task_id FROM tasks GROUP BY task_id HAVING count(*) > 1",
    "functions that a task needs, and are not there": "SELECT sequence FROM tasks JOIN requests USING (sequence) "
    "WHERE function_key != '' AND function_key NOT IN (SELECT key FROM functions)",
}


def read_store(path: Path) -> StoredFile:
    """Return what the file holds. Nobody may write to it meanwhile."""
    found = StoredFile()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        verdicts = [verdict for (verdict,) in connection.execute("PRAGMA integrity_check")]
        if verdicts != ["ok"]:
            found.problems.append(f"integrity_check: {verdicts[:3]}")
        for what, sql in _ORPHANS.items():
            rows = connection.execute(sql).fetchall()
            if rows:
                found.problems.append(f"{len(rows)} {what}: {[row[0] for row in rows[:3]]}")
        ((found.boots,),) = connection.execute("SELECT count(*) FROM boots").fetchall()
        outputs = dict(connection.execute("SELECT sequence, output FROM outputs"))
        results = dict(connection.execute("SELECT sequence, payload FROM results"))
        for *facts, policy in connection.execute(_TASKS):
            task = StoredTask(*facts)
            task.policy = json.loads(policy)
            task.is_taken = bool(task.is_taken)
            task.has_result = task.sequence in results
            task.output = outputs.get(task.sequence, b"")
            payload = results.get(task.sequence)
            if payload is not None:
                value = pickle.loads(payload)
                task.value = value.value if isinstance(value, JobFailed) else value
            found.tasks.append(task)
    return found
