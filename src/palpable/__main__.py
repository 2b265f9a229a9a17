"""`python -m palpable`: the command line, where the `palpable` script is not on the path."""

from __future__ import annotations

from palpable._cli.main import main

if __name__ == "__main__":
    main()
