"""The paths that programs import from are a promise: each class is defined where it always was."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import palpable

PATHS = {
    "palpable.servants.server": ["Server"],
    "palpable.servants.manager": ["Manager"],
    "palpable.servants.worker": ["Worker"],
    "palpable.units.client": ["Client"],
    "palpable.units.task": ["Task"],
    "palpable.units.task_result": ["TaskResult"],
    "palpable.units.task_response": ["TaskResponse"],
    "palpable.units.messenger": ["Messenger"],
    "palpable.units.task_exceptions": [
        "TaskFailed",
        "TaskTimeout",
        "TaskKilledByQuitSignal",
        "TaskKilledByMonitoringError",
    ],
    "palpable.procedures.procedure": ["Procedure"],
    "palpable.procedures.run_function": ["RunFunction"],
    "palpable.procedures.map_function": ["MapFunction"],
}

FACADE = [
    "Server",
    "Client",
    "AsyncClient",
    "Executor",
    "TaskFuture",
    "Procedure",
    "RunFunction",
    "MapFunction",
    "Task",
    "TaskResult",
    "Messenger",
    "current_task",
]


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PATHS.items() for name in names])
def test_a_class_of_the_original_is_defined_at_its_path(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert (found.__module__, found.__qualname__) == (module, name)


@pytest.mark.parametrize("name", FACADE)
def test_a_public_name_can_be_had_from_the_package(name: str) -> None:
    assert name in palpable.__all__
    assert name in dir(palpable)
    assert getattr(palpable, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = palpable.no_such_name  # type: ignore[attr-defined]


def test_importing_the_package_loads_no_server() -> None:
    code = "import sys, palpable; print([name for name in sys.modules if name.startswith('palpable.')])"
    heavy = ("asyncio", "uvloop", "psutil", "rich", "click", "multiprocessing", "concurrent.futures.process")
    code += f"; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n[]\n"


def test_making_a_client_loads_no_server() -> None:
    code = "import sys; from palpable import Client; Client('nowhere.sock', 'AF_UNIX', b'key')"
    code += "; print([n for n in ('asyncio', 'uvloop', 'rich', 'click', 'palpable.servants') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
