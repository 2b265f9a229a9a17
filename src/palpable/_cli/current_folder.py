"""The folder in which a command was called."""

from __future__ import annotations

import os
import sys


def import_from_here() -> None:
    """Have modules of the current folder found, as `python -m palpable` would."""
    here = os.getcwd()
    if not sys.flags.safe_path and here not in map(os.path.abspath, sys.path):
        sys.path.insert(0, here)
