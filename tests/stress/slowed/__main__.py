"""Run the tests of clients once for each step, slowed; say which tests failed with which.

python -m stress.slowed [PART OF THE NAME OF A STEP]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stress.slowed import STEPS, VARIABLE

TESTS = Path(__file__).parents[2]
PARTS = ("unit/_connection", "unit/units", "unit/integrations", "unit/_cli", "contract")
"""Of the tests: what speaks with the test server."""


def main() -> int:
    """Return the number of steps with which a test failed."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    steps = [name for name in STEPS if wanted in name]
    if not steps:
        print(f"no step has {wanted!r} in its name; there are:", *STEPS, sep="\n  ", file=sys.stderr)
        return 2
    failed = 0
    for name in steps:
        print(f"--- slowed: {name}", flush=True)
        command = [sys.executable, "-m", "pytest", "-p", "stress.slowed", "-q", "-n", "4", "--tb=short", *PARTS]
        failed += subprocess.run(command, cwd=TESTS, env={**os.environ, VARIABLE: name}).returncode != 0
    print(f"{len(steps) - failed} of {len(steps)} steps without a failure")
    return failed


sys.exit(main())
