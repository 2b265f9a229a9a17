"""What came out: medians, spreads and ratios, as JSON and as tables.

Runs in: the driver. It needs only the standard library.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contender import Contender
from benchmarks.environments import ROOT
from benchmarks.question import NAMES, QUICK, Bar, Question, Settings, load_question

BUSY_SHARE = 0.1
"""If others used more than this share of the machine, the results say so."""

Outcomes = dict[str, list[dict[str, Any]]]


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def values_of(outcomes: list[dict[str, Any]], key: str) -> dict[int, float]:
    """The values of one metric, by round."""
    measured = [outcome for outcome in outcomes if outcome["status"] == "measured"]
    found = {outcome["round"]: outcome["answer"].get(key) for outcome in measured}
    return {number: value for number, value in found.items() if value is not None}


def judge(bar: Bar, outcomes: Outcomes) -> dict[str, Any]:
    """Compare with the bar. A ratio is formed within each round, and the median of these ratios counts."""
    judged: dict[str, Any] = {key: value for key, value in bar._asdict().items() if value is not None}
    ours = values_of(outcomes.get(bar.ours, []), bar.metric)
    if bar.theirs is None:
        values = list(ours.values())
    else:
        theirs = values_of(outcomes.get(bar.theirs, []), bar.metric)
        values = [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]
    if not values:
        missing = bar.ours if not ours or bar.theirs is None else bar.theirs
        return judged | {"passed": None, "reason": f"{missing} was not measured"}
    return judged | summary(values) | {"passed": bar.is_reached_by(median(values))}


def build(
    question: Question, contenders: list[type[Contender]], outcomes: Outcomes, settings: Settings, rounds: int
) -> dict[str, Any]:
    """Return all that is known of one question, as it is written to its JSON file."""
    entries = []
    for contender in contenders:
        runs = outcomes[contender.name]
        measured = [run for run in runs if run["status"] == "measured"]
        entry: dict[str, Any] = {"name": contender.name, "title": contender.title, "is_fresh": contender.is_fresh}
        if measured:
            keyed = {metric.key: list(values_of(runs, metric.key).values()) for metric in question.metrics}
            entry["version"] = measured[-1]["version"]
            entry["count"] = median(run["answer"]["count"] for run in measured)
            entry["metrics"] = {key: summary(v) | {"values": v} for key, v in keyed.items() if v}
        failures = [run for run in runs if run["status"] != "measured"]
        if failures:
            entry["failures"] = [f"{run['status']}: {without_paths(run['reason'])}" for run in failures]
        left_behind = max((run.get("left_behind", 0) for run in runs), default=0)
        if left_behind:
            entry["left_behind"] = left_behind
        entries.append(entry | {"rounds_measured": len(measured)})
    busy = [run["busy_before"] for runs in outcomes.values() for run in runs if "busy_before" in run]
    return {
        "question": question.name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "busy_before": round(median(busy), 3) if busy else None,
        "rounds": rounds,
        "settings": settings._asdict(),
        "bars": [judge(bar, outcomes) for bar in question.bars],
        "contenders": entries,
    }


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()

    is_changed = bool(git("status", "--porcelain", "--", "src", "benchmarks/*.py"))
    return (git("rev-parse", "--short", "HEAD") or "none") + (" with changes" if is_changed else "")


def machine() -> dict[str, Any]:
    """What matters for the numbers, and nothing that names this machine."""
    memory_kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_gb": round(memory_kilobytes / 2**20),
        "kernel": "Linux " + ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
    }


def without_paths(reason: str) -> str:
    """A reason as it may be published: shortened, and without the folders of this machine."""
    text = reason.replace(str(ROOT), "...").replace(str(Path.home()), "~")
    return text if len(text) <= 300 else text[:300] + "..."


# --- tables -----------------------------------------------------------------------------------------------------


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def significant(value: float) -> str:
    """Three digits that matter, as a ratio needs."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table that is also readable as it stands: the columns are padded, numbers to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(len(first)), *others]) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(header), rule, *(line(row) for row in rows)]


def bars_table(results: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for bar in (bar for result in results for bar in result["bars"]):
        limits = [f"{word} {bar[key]:g}" for key, word in (("at_least", ">="), ("at_most", "<=")) if key in bar]
        if bar["passed"] is None:
            rows.append([bar["claim"], "-", "-", *limits, f"not known: {bar['reason']}"])
        else:
            spread = f"{significant(bar['min'])} .. {significant(bar['max'])}"
            verdict = "pass" if bar["passed"] else "FAIL"
            rows.append([bar["claim"], significant(bar["median"]), spread, *limits, verdict])
    return table(["what", "median", "spread", "bar", "result"], rows)


def question_tables(result: dict[str, Any]) -> list[str]:
    question = load_question(result["question"])
    rows, missing = [], []
    for entry in result["contenders"]:
        if "metrics" in entry:
            row = [entry["title"] + (f" ({entry['version']})" if entry["version"] else "")]
            for metric in question.metrics:
                found = entry["metrics"].get(metric.key)
                row.append("-" if found is None else number(found["median"], metric.digits))
                if metric is question.metrics[0]:
                    spread = [number(found[end], metric.digits) for end in ("min", "max")] if found else ["-"]
                    row.append(" .. ".join(spread))
            rows.append([*row, f"{entry['count']:,.0f}", str(entry["rounds_measured"])])
        for failure in entry.get("failures", []):
            missing.append(f"- {entry['title']}: {failure}")
        if entry.get("left_behind"):
            missing.append(f"- {entry['title']}: left {entry['left_behind']} processes behind, which were ended.")
    first, *others = [metric.title for metric in question.metrics]
    lines = table(["contender", first, "min .. max", *others, "count", "rounds"], rows) if rows else []
    return [*lines, "", *dict.fromkeys(missing)] if missing else lines


def conditions(result: dict[str, Any]) -> str:
    facts = result["machine"]
    text = (
        f"{result['date']}, commit {result['commit']}, {result['rounds']} round(s); "
        f"{facts['cpus']} CPUs ({facts['cpu']}), {facts['memory_gb']} GB, {facts['kernel']}, Python {facts['python']}."
    )
    if Settings(**result["settings"]) == QUICK:
        text += " **A quick run: small numbers, so the bars are only a hint.**"
    busy = result["busy_before"]
    if busy is not None and busy > BUSY_SHARE:
        text += f" **The machine was not quiet: others used {busy:.0%} of it, so these numbers are only indicative.**"
    return text


def markdown(results: Sequence[dict[str, Any]]) -> str:
    lines = ["# Results", "", "Made by `make bench`; the method is in `../README.md`. Medians of all rounds.", ""]
    lines += ["## The bars", "", *bars_table(results), ""]
    for result in results:
        question = load_question(result["question"])
        lines += [f"## {question.title}", "", question.text, "", conditions(result), "", *question_tables(result), ""]
    return "\n".join(lines)


def write(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write one JSON file per question, and the table of all questions that have one."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        (folder / f"{result['question']}.json").write_text(json.dumps(result, indent=1) + "\n")
    files = [folder / f"{name}.json" for name in NAMES]
    known = [json.loads(file.read_text()) for file in files if file.exists()]
    (folder / "README.md").write_text(markdown(known))
