"""The command: one storm, with a report.

python -m stress.storm --seed 7 --kills 500
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from stress.storm.place import KINDS
from stress.storm.run import Storm


def _make_folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="palpable-storm-"))
    wanted.mkdir(parents=True)
    return wanted.absolute()


def main() -> int:
    """Return 0 if nothing was found, 1 if something was."""
    parser = argparse.ArgumentParser(prog="stress.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="draws the faults [random]")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=30.0, help="at most")
    parser.add_argument("--over", choices=KINDS, help="how clients connect [drawn with the seed]")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between two faults, on average")
    parser.add_argument("--report", type=Path, help="write the report to this file, too")
    parser.add_argument("--folder", type=Path, help="where the records go; there is none of that name yet")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all records, also of a clean run")
    arguments = parser.parse_args()
    over = arguments.over or random.Random(arguments.seed).choice(KINDS)
    print(f"storm with seed {arguments.seed}, over {over}", flush=True)
    faulthandler.register(signal.SIGUSR1)  # where it is, for who waits for it in vain
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that what was started is ended
    folder = _make_folder(arguments.folder)
    storm = Storm(
        folder,
        arguments.seed,
        arguments.kills,
        clients=arguments.clients,
        most_seconds=arguments.minutes * 60,
        mean_pause_seconds=arguments.pause,
        over=over,
    )
    report, findings = storm.run()
    print(report)
    if arguments.report is not None:
        arguments.report.parent.mkdir(parents=True, exist_ok=True)
        arguments.report.write_text(report)
    if findings or arguments.keep:
        print(f"all records: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
