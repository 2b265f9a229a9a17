"""Palpable beside its peers.

make bench                               all questions, five rounds: takes long
python -m benchmarks --quick             one round of everything with small numbers, in some minutes
python -m benchmarks --only task_throughput --contenders palpable,pool --rounds 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import report, store_folder
from benchmarks.contender import Contender, all_contenders
from benchmarks.environments import ROOT, make_environments
from benchmarks.harness import run_rounds, take_responsibility
from benchmarks.question import NAMES, QUICK, Settings, load_question

ROUNDS = 5


def comma_separated(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round with small numbers; nothing is written")
    parser.add_argument("--only", type=comma_separated, metavar="QUESTION,...", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--contenders", type=comma_separated, metavar="NAME,...", help="families or single variants")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}, or 1 with --quick")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the results; default benchmarks/results for a full run, else none",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT,
        help="where stores are written; it must be on a disk (default: the checkout)",
    )
    parser.add_argument("--list", action="store_true", help="print questions and contenders, and measure nothing")
    parsed = parser.parse_args(arguments)
    for name in parsed.only or []:
        if name not in NAMES:
            parser.error(f"--only: there is no question {name!r}; choose from {', '.join(NAMES)}")
    known = {name for contender in all_contenders() for name in (contender.name, family(contender))}
    for name in parsed.contenders or []:
        if name not in known:
            parser.error(f"--contenders: there is no {name!r}; choose from {', '.join(sorted(known))}")
    if parsed.rounds is None:
        parsed.rounds = 1 if parsed.quick else ROUNDS
    if parsed.rounds < 1:
        parser.error("--rounds: at least 1")
    if parsed.output is None and not parsed.quick and not parsed.contenders:
        parsed.output = ROOT / "benchmarks" / "results"
    return parsed


def family(contender: type[Contender]) -> str:
    return contender.name.split("-")[0]


def main() -> None:
    chosen = parse()
    contenders = [
        contender
        for contender in all_contenders()
        if not chosen.contenders or {contender.name, family(contender)} & set(chosen.contenders)
    ]
    questions = [load_question(name) for name in chosen.only or NAMES]
    if chosen.list:
        for question in questions:
            print(question.name, "-", question.title)
            for contender in contenders:
                if question.name in contender.answers:
                    print(f"    {contender.name:24} {contender.title}")
        return
    make_environments()
    take_responsibility()
    store_folder.parent_folder = chosen.folder.resolve()
    settings = QUICK if chosen.quick else Settings()
    results = []
    for question in questions:
        taking_part = [contender for contender in contenders if question.name in contender.answers]
        if not taking_part:
            continue
        outcomes = run_rounds(question, taking_part, settings, chosen.rounds)
        results.append(report.build(question, taking_part, outcomes, settings, chosen.rounds))
        if chosen.output:
            report.write(chosen.output, results)  # after each question, so that an interrupted run keeps what it has
    print(report.markdown(results))
    judged = [bar["passed"] for result in results for bar in result["bars"]]
    print(f"Bars: {judged.count(True)} passed, {judged.count(False)} missed, {judged.count(None)} not known.")


if __name__ == "__main__":
    main()
