"""A short storm, as part of every test run; `make storm` runs a long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KILLS = 12
MOST_MINUTES = 0.4


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.timeout(200)
def test_nothing_is_lost_doubled_or_left_in_a_short_storm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stress.storm", "--kills", str(KILLS), "--minutes", str(MOST_MINUTES)]
    command += ["--folder", str(tmp_path / "storm")]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as storm:
        try:
            said, _ = storm.communicate()
        finally:
            storm.terminate()  # if this test was interrupted: it ends what it started
    assert storm.returncode == 0, said
