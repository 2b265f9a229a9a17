"""Runs the quick part of the test suite on the other supported Pythons of this machine, each in its own environment.

A Python that is not here is said, not failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13")


def find_interpreter(version: str) -> str | None:
    """Return a command that runs Python `version`: one kept by pyenv, else one on PATH; None if neither runs."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}*/bin/python"))
    found = shutil.which(f"python{version}")
    for candidate in [*map(str, kept), *([found] if found else [])]:
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if answer.stdout.strip() == version:  # a shim on PATH may name a version that it cannot run
            return candidate
    return None


def main() -> int:
    """Run each in turn; return 1 if one failed."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    summary = [f"Python {own}: passed"]
    has_failed = False
    for version in SUPPORTED:
        if version == own:
            continue
        interpreter = find_interpreter(version)
        if interpreter is None:
            summary.append(f"Python {version}: not on this machine, not tested")
            continue
        print(f"--- the quick part of the suite on Python {version} ---", flush=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        command = ["make", f"VENV=.venv-{version}", f"PYTHON={interpreter}", "test-quick"]
        result = subprocess.run(command, env=environment)
        has_failed |= result.returncode != 0
        summary.append(f"Python {version}: {'FAILED' if result.returncode else 'passed'} (quick part)")
    print("\n".join(summary))
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
