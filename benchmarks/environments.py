"""The environments of the benchmarks: one for Palpable and its peers, one for the original.

`.venv-bench` holds this checkout and the peers of `requirements.txt`, so that all run on the same interpreter with the
same packages at hand. `.venv-original` holds palpable 0.0.11, which has our import name. Both are made when missing,
and renewed when what they are made from has changed. Needs Python and a package index only.

Usage: python -m benchmarks.environments
`BENCHMARK_PYTHON` and `BENCHMARK_ORIGINAL_PYTHON` name other interpreters to use instead.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
ORIGINAL = "palpable==0.0.11"
OVERRIDES = {"bench": "BENCHMARK_PYTHON", "original": "BENCHMARK_ORIGINAL_PYTHON"}


def python_of(environment: str) -> Path:
    """Return the interpreter of an environment, "bench" or "original"."""
    override = os.environ.get(OVERRIDES[environment])
    return Path(override) if override else ROOT / f".venv-{environment}" / "bin" / "python"


def make_environments() -> None:
    """Make what is missing or outdated. A failure of the original's is reported later, where it is measured."""
    if "BENCHMARK_PYTHON" not in os.environ:
        constraints = ROOT / "constraints.txt"
        make(
            "bench",
            [
                ["-c", str(constraints), "hatchling", "editables"],
                ["-c", str(constraints), "--no-build-isolation", "-e", str(ROOT)],
                ["-r", str(REQUIREMENTS)],
            ],
            made_from=[ROOT / "pyproject.toml", constraints, REQUIREMENTS],
        )
    if "BENCHMARK_ORIGINAL_PYTHON" not in os.environ:
        try:
            make("original", [["-c", str(REQUIREMENTS), ORIGINAL, "numpy", "pandas"]], made_from=[REQUIREMENTS])
        except subprocess.CalledProcessError as error:
            print(f"The environment of the original could not be made: {error}", file=sys.stderr)


def make(environment: str, installs: list[list[str]], made_from: list[Path]) -> None:
    python = python_of(environment)
    folder = python.parent.parent
    stamp = folder / "made-from"
    digest = hashlib.sha256(b"".join([sys.version.encode(), *(path.read_bytes() for path in made_from)])).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"making {folder.name} ...", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    for arguments in installs:
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *arguments]
        subprocess.run(install, check=True)
    stamp.write_text(digest)


if __name__ == "__main__":
    make_environments()
