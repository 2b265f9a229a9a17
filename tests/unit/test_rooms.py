"""Imports point one way through the rooms of the package, and `_core` decides without doing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "palpable"
ROOMS = [
    {"_core"},
    {"_wire"},
    {"_connection"},
    {"procedures", "units"},
    {"_store", "_zygote"},
    {"servants"},
    {"integrations", "_cli"},
]
RANKS = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
FOR_ALL = "palpable.units.task_exceptions"
MODULES = sorted(PACKAGE.rglob("*.py"))

DOES_SOMETHING = {
    *("asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "psutil", "select", "selectors"),
    *("shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "uvloop"),
}


def _imports(path: Path) -> Iterator[str]:
    """The full name of every module that is imported anywhere in the file, but for what only type checkers read."""
    tree = ast.parse(path.read_bytes())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "palpable" and len(parts) > 1 and parts[1] in RANKS else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_room_and_those_below(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    if room not in RANKS:
        return
    for module in _imports(path):
        other = _room(module)
        if other and other != room and not module.startswith(FOR_ALL):
            assert RANKS[other] <= RANKS[room], f"{path.relative_to(PACKAGE)} imports {module}, which is above it"


def test_every_folder_of_the_package_is_a_known_room() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert folders <= set(RANKS)


def test_the_errors_import_nothing_of_ours() -> None:
    assert not [
        module for module in _imports(PACKAGE / "units" / "task_exceptions.py") if module.startswith("palpable")
    ]


@pytest.mark.parametrize("path", sorted((PACKAGE / "_core").glob("*.py")), ids=lambda path: path.name)
def test_the_core_opens_nothing_and_reads_no_clock(path: Path) -> None:
    assert not {module.split(".")[0] for module in _imports(path)} & DOES_SOMETHING


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_in_its_first_line_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_bytes()))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))
