"""What tasks import dearly is preloaded from then on, and is no other module for that."""

from __future__ import annotations

import importlib
import sys
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


def test_what_a_module_of_functions_imports_of_this_package_is_preloaded_for_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in most programs: the functions lie beside the client that submits them. It made a task six times as dear."""
    (tmp_path / "lm_program.py").write_text(
        "import sys\n"
        "was_there = 'palpable.units.client' in sys.modules\n"
        "from palpable import Client\n"
        "def was_client_there(): return was_there\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    program = importlib.import_module("lm_program")
    try:
        with Server(num_workers=1) as server, server.client() as client:
            assert client.submit(program.was_client_there).result(20) is False
            assert wait_until(lambda: client.submit(program.was_client_there).result(20), 20) is True
            assert "palpable.units.client" in client.get_status()["preloaded"]
    finally:
        del sys.modules["lm_program"]
