"""How long until the command line answers, and until Palpable is imported?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.contender import Contender
from benchmarks.question import Bar, Metric, Question, Settings

IMPORT = "import time; started = time.perf_counter(); import palpable; print(time.perf_counter() - started)"


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    program = str(Path(sys.executable).parent / "palpable")
    run(program, "--help")  # compiles what is not compiled, and brings the files into memory
    bare, helped, imported = [], [], []
    for _ in range(settings.start_count):
        bare.append(seconds(sys.executable, "-c", "pass"))
        helped.append(seconds(program, "--help"))
        imported.append(float(run(sys.executable, "-c", IMPORT)))
    return {
        "help_ms": median(helped) * 1000,
        "import_ms": median(imported) * 1000,
        "python_ms": median(bare) * 1000,
        "count": settings.start_count,
    }


def seconds(*command: str) -> float:
    started = perf_counter()
    run(*command)
    return perf_counter() - started


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


QUESTION = Question(
    name="start_up",
    title="Starting up",
    text=(
        "`palpable --help` from the start of its process to its end, and `import palpable` within a process that has "
        "imported nothing; `count` times in turn, beside a Python that does nothing."
    ),
    metrics=(
        Metric("help_ms", "palpable --help, ms", 1),
        Metric("import_ms", "import palpable, ms", 2),
        Metric("python_ms", "python -c pass, ms", 1),
    ),
    bars=(
        Bar("palpable --help, ms", "help_ms", "palpable-start", at_most=150),
        Bar("import palpable, ms", "import_ms", "palpable-start", at_most=60),
    ),
    measure=measure,
)
