"""What tasks import dearly is preloaded from then on, and is no other module for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from palpable import Server
from support.wait import wait_until

OUTER = """
try:
    from _lm_fast import answer
except ImportError:
    answer = "slow"
"""
INNER = """
import time
time.sleep(0.02)
import lm_library
answer = "fast"
"""


def test_a_library_and_its_fast_part_that_import_each_other_are_preloaded_in_the_order_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `asyncio` and `_asyncio`: without that, `asyncio.timeout` raised in tasks."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "lm_library.py").write_text(OUTER)
    (folder / "_lm_fast.py").write_text(INNER)
    monkeypatch.syspath_prepend(str(folder))

    def answer() -> tuple[bool, str]:
        import sys

        was_there = "lm_library" in sys.modules
        import lm_library  # type: ignore[import-not-found]

        return was_there, lm_library.answer

    with Server(num_workers=1) as server, server.client() as client:
        assert client.submit(answer).result(20) == (False, "fast")
        was_there, said = wait_until(lambda: (now := client.submit(answer).result(20))[0] and now, 20)
        assert (was_there, said) == (True, "fast")
