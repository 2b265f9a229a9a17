"""Programs of many modules: these are searched for once, and run by every task as their files are then."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Literal

import pytest

from palpable import Server
from support.zygotes import WAIT_SECONDS, FakeServer, serve


@pytest.mark.parametrize("isolation", ["task", "worker"])
def test_every_task_runs_all_modules_of_its_program_itself_as_their_files_are_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: Literal["task", "worker"]
) -> None:
    program = tmp_path / "program_of_tasks"
    (program / "parts").mkdir(parents=True)
    for name in ("__init__.py", "parts/__init__.py"):
        (program / name).write_text("")
    (program / "parts" / "pids.py").write_text("import os\nPID, CHANGED = os.getpid(), []\n")
    source = program / "parts" / "numbers_of_it.py"
    source.write_text("NUMBER = 1\n")
    (program / "main_part.py").write_text(
        "import os\n"
        "from .parts import pids\n"
        "from program_of_tasks.parts.numbers_of_it import NUMBER\n"
        "def look(value):\n"
        "    found = NUMBER, pids.PID == os.getpid(), len(pids.CHANGED)\n"
        "    pids.CHANGED.append(value)\n"
        "    return found\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    look = importlib.import_module("program_of_tasks.main_part").look
    try:
        with Server(num_workers=1, isolation=isolation) as server, server.client() as client:
            # Enough that the last ones ran in processes forked after the zygote was told of all modules.
            seen = client.map(look, range(20), chunksize=1)
            changes = [0] * 20 if isolation == "task" else list(range(20))
            assert seen == [(1, True, count) for count in changes]
            if isolation == "task":
                source.write_text("NUMBER = 1234\n")
                assert client.map(look, range(20)) == [(1234, True, 0)] * 20
                (program / "parts" / "numbers_of_it").mkdir()
                (program / "parts" / "numbers_of_it" / "__init__.py").write_text("NUMBER = 'of the package'\n")
                assert client.map(look, range(20)) == [("of the package", True, 0)] * 20
    finally:
        for name in [name for name in sys.modules if name.startswith("program_of_tasks")]:
            del sys.modules[name]


def test_a_task_says_what_it_searched_for_until_the_zygote_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zy_program").mkdir()
    for name, text in (
        ("__init__", ""),
        ("main", "from zy_program import first, second"),
        ("first", ""),
        ("second", ""),
    ):
        (tmp_path / "zy_program" / f"{name}.py").write_text(text)
    (tmp_path / "zy_program" / "mistake.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))

    def import_one(name: str) -> None:
        import importlib

        importlib.import_module(f"zy_program.{name}")

    async def test(server: FakeServer) -> None:
        async def searched(name: str) -> list[str]:
            ended, _, _ = await server.run(import_one, name)
            assert ended is not None
            return [full_name.rpartition(".")[2] for full_name in ended.searched]

        assert await searched("main") == ["zy_program", "main", "first", "second"]
        assert await searched("mistake") == ["zy_program", "mistake"], "a task that fails says so too"

        async def said_until(name: str, expected: list[str]) -> None:
            """What is prepared, those know that were forked since."""
            while (said := await searched(name)) != expected:
                assert set(said) > set(expected)

        server.handle.prepare_modules([f"zy_program.{name}" for name in ("main", "first", "mistake", "nowhere")])
        await asyncio.wait_for(said_until("main", ["second"]), WAIT_SECONDS)
        await asyncio.wait_for(said_until("mistake", []), WAIT_SECONDS)
        (tmp_path / "zy_program" / "first.py").write_text("VALUE = 1")
        assert await searched("main") == ["first", "second"]
        server.handle.prepare_modules(["zy_program.first"])
        await asyncio.wait_for(said_until("main", ["second"]), WAIT_SECONDS)

    serve(tmp_path / "spools", test)
