"""A short storm, as part of every test run; `make storm` runs a long one."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KILLS = 12
MOST_MINUTES = 0.4
END_SECONDS = 120.0
"""Four times as long as it takes. Less than after what pytest ends all, which would leave a storm that nobody ends."""
ENDING_SECONDS = 15.0
LOG_CHARS = 20_000


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.timeout(0)
def test_nothing_is_lost_doubled_or_left_in_a_short_storm(tmp_path: Path) -> None:
    folder = tmp_path / "storm"
    command = [sys.executable, "-m", "stress.storm", "--kills", str(KILLS), "--minutes", str(MOST_MINUTES)]
    command += ["--folder", str(folder)]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as storm:
        try:
            said = _end_of(storm, END_SECONDS)
            if said is None:
                pytest.fail(f"the storm has not ended\n{_what_is_known(storm, folder)}")
        finally:
            storm.terminate()  # if this test was interrupted: it ends what it started
    assert storm.returncode == 0, said


def _end_of(storm: subprocess.Popen[str], seconds: float) -> str | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return storm.communicate(timeout=seconds)[0]
    return None


def _what_is_known(storm: subprocess.Popen[str], folder: Path) -> str:
    """End a storm that hangs; return what its server has logged, and what it said, with where its threads were."""
    storm.send_signal(signal.SIGUSR1)
    log = (folder / "logs" / "server.log").read_text(errors="replace")[-LOG_CHARS:]
    storm.terminate()
    said = _end_of(storm, ENDING_SECONDS)
    if said is None:
        storm.kill()
        said = storm.communicate()[0]
    return f"{log}\n{said}"
