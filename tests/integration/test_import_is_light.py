"""What `import palpable` and each part load: a client does not pay for the server, nor a task for either."""

from __future__ import annotations

import subprocess
import sys

LEAN = "from palpable._wire.lean_msgspec import import_msgspec; import_msgspec()"


def loaded_by(statement: str) -> set[str]:
    """The modules that the statement loads in a new interpreter, beyond those of an empty one."""
    source = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-S", "-c", source] if statement == "pass" else [sys.executable, "-c", source]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return set(result.stdout.split())


def test_the_package_alone_loads_next_to_nothing() -> None:
    assert loaded_by("import palpable") <= {"palpable", "__future__"}


def test_the_errors_load_nothing_but_themselves() -> None:
    loaded = loaded_by("from palpable import PalpableError, TaskFailed, ServerUnreachable")
    assert not loaded & {"typing", "concurrent.futures", "logging", "msgspec", "cloudpickle", "multiprocessing"}


def test_what_unpickles_and_runs_a_task_loads_no_server_and_no_heavy_module() -> None:
    loaded = loaded_by("import palpable._wire.payload")
    heavy = {"asyncio", "ssl", "socket", "subprocess", "multiprocessing", "concurrent.futures", "hashlib", "_hashlib"}
    heavy |= {"numpy", "psutil", "rich", "uvloop", "hmac"}
    assert not loaded & heavy
    ours = {name for name in loaded if name.startswith("palpable")}
    assert all(name.split(".")[1:2] in ([], ["_wire"], ["units"]) for name in ours), ours
    assert not {name for name in ours if "client" in name or "messenger" in name}


def test_a_zygote_loads_no_server_no_heavy_module_and_nothing_for_asyncio() -> None:
    loaded = loaded_by(
        "import palpable._zygote.start as start; from importlib import import_module;"
        "[import_module(name) for name in start.COMMON_IMPORTS]"
    )
    heavy = {"asyncio", "ssl", "subprocess", "multiprocessing", "concurrent.futures.process", "hashlib", "_hashlib"}
    heavy |= {"numpy", "psutil", "rich", "uvloop", "hmac", "tempfile", "shutil", "random", "sqlite3", "json"}
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith(("palpable.servants", "palpable._core", "palpable._cli"))}


def test_a_client_on_this_machine_loads_no_tls() -> None:
    loaded = loaded_by("from palpable import Client; import palpable._connection.dialing")
    assert not loaded & {"ssl", "_ssl", "asyncio", "psutil"}


def test_a_server_process_loads_what_few_calls_need_no_sooner_than_they_do() -> None:
    loaded = loaded_by(f"{LEAN}; import palpable.servants.server_process")
    assert "msgspec" in loaded and not loaded & {"psutil", "shutil", "bz2", "lzma", "typing_extensions"}


def test_what_is_kept_from_msgspec_can_be_imported_later() -> None:
    loaded = loaded_by(f"{LEAN}; import typing_extensions; import_msgspec()")
    assert {"msgspec", "typing_extensions"} <= loaded
