"""A short storm, as part of every test run; `make storm` runs a long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KILLS = 14
MOST_MINUTES = 0.4


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.timeout(140)
def test_nothing_is_lost_doubled_or_left_in_a_short_storm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stress.storm", "--kills", str(KILLS), "--minutes", str(MOST_MINUTES)]
    storm = subprocess.run(
        [*command, "--pause", "0.3", "--folder", str(tmp_path / "storm")], cwd=TESTS, capture_output=True, text=True
    )
    assert storm.returncode == 0, f"{storm.stdout}\n{storm.stderr}"
