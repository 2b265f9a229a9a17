"""One measurement: one contender answers one question once, in this process.

Runs in: a process of its own, started by `harness`. Prints one line of JSON. It imports little, see `question`.
Usage: python -m benchmarks.measure QUESTION CONTENDER SETTINGS
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.contender import Contender, NotAvailable, load_contender
from benchmarks.question import Settings, load_question


def increment(value: int) -> int:
    """`tasks.increment` once more: this one is a function of `__main__`."""
    return value + 1


def version_of(contender: type[Contender]) -> str:
    from importlib.metadata import PackageNotFoundError, version

    if contender.distribution is None:
        return ""
    try:
        return version(contender.distribution)
    except PackageNotFoundError:
        return "not known"


def measure(question_name: str, contender_name: str, settings: Settings) -> dict[str, Any]:
    """Return the answer, or the reason why there is none. Tears down only after the answer is printed, in `main`."""
    contender_class = load_contender(contender_name)
    contender = contender_class()
    try:
        contender.set_up()
        answer = load_question(question_name).measure(contender, settings)
        return {"status": "measured", "answer": answer, "version": version_of(contender_class), "contender": contender}
    except ImportError as error:
        return {"status": "not installed", "reason": str(error), "contender": contender}
    except NotAvailable as error:
        return {"status": "not available", "reason": str(error), "contender": contender}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}", "contender": contender}


def main() -> None:
    question_name, contender_name, settings_text = sys.argv[1:]
    # What peers and their workers print belongs to the log, only the answer to standard output.
    answer_file = os.dup(1)
    os.dup2(2, 1)
    outcome = measure(question_name, contender_name, Settings(**json.loads(settings_text)))
    contender: Contender = outcome.pop("contender")
    os.write(answer_file, (json.dumps(outcome) + "\n").encode())
    os.close(answer_file)
    contender.tear_down()  # what it can't end, the driver ends and reports


if __name__ == "__main__":
    main()
