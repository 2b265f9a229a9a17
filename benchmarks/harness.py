"""Runs the measurements: each in a process of its own, the contenders alternating within each round.

Runs in: the driver. It needs only the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import store_folder
from benchmarks.contender import Contender
from benchmarks.environments import ROOT, python_of
from benchmarks.process_tree import children, tree
from benchmarks.question import Question, Settings

ENDING_SECONDS = 10.0
"""What a contender gets to tear down, after its answer."""
MOST_FAILURES = 2
"""After so many failures a contender is left out of the remaining rounds."""
PR_SET_CHILD_SUBREAPER = 36


def take_responsibility() -> None:
    """See to it that whatever a contender leaves behind is found and ended, also when the driver is told to end.

    The driver inherits the orphans of all its descendants, and a SIGTERM unwinds it like Ctrl-C.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_rounds(
    question: Question, contenders: list[type[Contender]], settings: Settings, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Return the outcomes of each contender, one per round; a contender that can't run has fewer."""
    outcomes: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for round_number in range(rounds):
        # Another one begins in each round, so that none always follows the same one or starts on a cool machine.
        shift = round_number * 3 % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            earlier = outcomes[contender.name]
            if is_given_up(earlier):
                continue
            outcome = run_once(question, contender, settings)
            outcome["round"] = round_number
            earlier.append(outcome)
            show(question, contender, outcome, round_number)
    return outcomes


def is_given_up(earlier: list[dict[str, Any]]) -> bool:
    can_not_run = any(outcome["status"] in ("not installed", "not available") for outcome in earlier)
    return can_not_run or sum(outcome["status"] != "measured" for outcome in earlier) >= MOST_FAILURES


def run_once(question: Question, contender: type[Contender], settings: Settings) -> dict[str, Any]:
    """Measure one contender once; whatever happens, nothing it started is left when this returns.

    Steps: start the measuring process; wait for it, within the question's time limit; end what is left; read the
    answer.
    """
    python = python_of(contender.environment)
    if not python.exists():
        return {"status": "not installed", "reason": f"the environment .venv-{contender.environment} is missing"}
    busy = busy_share()
    started = time.monotonic()
    command = [str(python), "-m", "benchmarks.measure"]
    command += [question.name, contender.name, json.dumps(settings._asdict())]
    folder = tempfile.mkdtemp(prefix="bench-")  # also for what a contender that is killed can't remove
    stores = tempfile.mkdtemp(prefix=store_folder.PREFIX, dir=store_folder.parent_folder)
    try:
        with open(f"{folder}/answer", "w+") as answer, open(f"{folder}/log", "w+") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment_variables(folder) | {store_folder.VARIABLE: stores},
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=log,
                start_new_session=True,
            )
            try:
                is_in_time = wait_for(process, Path(answer.name), question.timeout_seconds)
            finally:  # also when the driver is interrupted
                left_behind = end_descendants(process)
            outcome = read_outcome(Path(answer.name), Path(log.name), process.returncode)
        if outcome["status"] == "failed" and not is_in_time:
            outcome = {"status": "timed out", "reason": f"no answer within {question.timeout_seconds:.0f} s"}
            left_behind = 0  # it was ended in the middle of its work
        seconds = time.monotonic() - started
        return outcome | {"busy_before": busy, "left_behind": left_behind, "seconds": seconds}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(stores, ignore_errors=True)


def environment_variables(folder: str) -> dict[str, str]:
    """The driver's environment, without what points to another Python, and with the tasks importable by workers."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PALPABLE_"))}
    return variables | {"PYTHONPATH": str(ROOT), "TMPDIR": folder}


def wait_for(process: subprocess.Popen[bytes], answer: Path, seconds: float) -> bool:
    """Wait for the process to end; False if it had to be given up. Once it has answered, it may only tear down."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if answer.stat().st_size:
            try:
                process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                return False
    return process.poll() is not None


def end_descendants(process: subprocess.Popen[bytes]) -> int:
    """End, by id, all that the driver has below it; return how many outlived their measuring process by a second."""
    deadline = time.monotonic() + 1.0
    while process.poll() is not None and children(os.getpid()) and time.monotonic() < deadline:
        reap(process)
        time.sleep(0.02)
    left = [pid for child in children(os.getpid()) for pid in tree([child])]
    for _ in range(200):
        remaining = [pid for child in children(os.getpid()) for pid in tree([child])]
        if not remaining:
            break
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
        reap(process)
    process.wait()
    return len(left)


def reap(process: subprocess.Popen[bytes]) -> None:
    """Collect orphans that have ended; the measuring process itself is left to its `Popen`."""
    process.poll()
    for file in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in map(int, file.read_text().split()):
            if pid != process.pid:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue


def read_outcome(answer: Path, log: Path, exit_status: int) -> dict[str, Any]:
    lines = answer.read_text().splitlines()
    if lines:
        outcome: dict[str, Any] = json.loads(lines[0])
        return outcome
    last_lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-3:]
    return {"status": "failed", "reason": f"ended with exit status {exit_status}: {' / '.join(last_lines)}"}


def busy_share() -> float:
    """Return the share of the machine's CPU time that others use just now, measured over a fifth of a second."""

    def counters() -> tuple[int, int]:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total_before, idle_before = counters()
    time.sleep(0.2)
    total, idle = counters()
    return 1 - (idle - idle_before) / max(total - total_before, 1)


def show(question: Question, contender: type[Contender], outcome: dict[str, Any], round_number: int) -> None:
    if outcome["status"] == "measured":
        metric = question.metrics[0]
        value = outcome["answer"].get(metric.key)
        text = "-" if value is None else f"{value:,.{metric.digits}f} {metric.title}"
    else:
        text = f"{outcome['status']}: {outcome['reason']}"
    if outcome.get("left_behind"):
        text += f"   (left {outcome['left_behind']} processes behind)"
    took = f"{outcome.get('seconds', 0.0):5.1f} s"
    print(
        f"  {question.name} round {round_number + 1}  {took}  {contender.name:22} {text}", file=sys.stderr, flush=True
    )
