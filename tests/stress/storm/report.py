"""The report of a storm: what was done, what ran, what was found."""

from __future__ import annotations

import platform
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from stress.storm.finding import Finding
from stress.storm.history import History

SHOWN = 5
"""So many cases of each rule are shown."""


class Run(NamedTuple):
    """What a storm was."""

    seed: int
    kills: int
    struck: Counter[str]
    clients: int
    over: str
    """How clients connected."""
    seconds: float
    left_out: list[str]
    """Faults that could not be, with the reason."""


def make_report(run: Run, history: History, findings: list[Finding]) -> str:
    """Return the report as Markdown."""
    states = Counter(task.outcome or task.state for task in history.file.tasks)
    starts = sum(len(events) for events in history.started.values())
    again = sum(1 for task in history.file.tasks if task.attempt > 1)
    answers = Counter(told.answer for told in history.told)
    lines = [
        f"# Storm of {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC",
        "",
        f"- commit {_commit()}, Python {platform.python_version()}, {platform.system()} {platform.release()}",
        f'- again: `make storm STORM_ARGS="--seed {run.seed} --kills {run.kills} --over {run.over}"`',
        f"- {run.kills} kills in {run.seconds:.0f} s, {run.clients} clients over {run.over}, "
        f"{len(history.server_starts)} starts of the server, {history.file.boots} openings of the store",
        f"- {len(history.file.tasks)} tasks, {again} of them more than one attempt, {starts} starts seen, "
        f"{len(history.told)} answers",
        *(f"- left out: {what}" for what in run.left_out),
        "",
        "| fault | times |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(run.struck.items())),
        "",
        "| end of a task | tasks |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(states.items())),
        "",
        "| upkeep | times |",
        "|---|---|",
        f"| purge | {len(history.purges)} |",
        f"| retry | {len(history.retries)} |",
        f"| log followed | {len(history.followed)} |",
        "",
        "| answer | times |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(answers.items())),
        "",
        *_findings(findings),
    ]
    return "\n".join(lines) + "\n"


def _findings(findings: list[Finding]) -> list[str]:
    if not findings:
        return ["Nothing lost, nothing doubled, nothing left: no findings."]
    lines = [f"{len(findings)} findings:", ""]
    for rule, count in sorted(Counter(finding.rule for finding in findings).items()):
        lines.append(f"- {rule}: {count}")
        lines += [f"    - {finding.what}" for finding in findings if finding.rule == rule][:SHOWN]
    return lines


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
