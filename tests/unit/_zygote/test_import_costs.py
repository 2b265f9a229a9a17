"""What imports cost is noted in the order in which they began."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from palpable._zygote.import_costs import MIN_SECONDS, ImportClock


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed modules; what a test imports from it is forgotten."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def clock(installed: Path, monkeypatch: pytest.MonkeyPatch) -> ImportClock:
    clock = ImportClock()
    monkeypatch.setattr(sys, "meta_path", [clock, *sys.meta_path])
    return clock


def test_a_module_comes_before_those_that_it_imports(installed: Path, clock: ImportClock) -> None:
    (installed / "_ic_inner.py").write_text(f"import time\ntime.sleep({2 * MIN_SECONDS})")
    (installed / "ic_outer.py").write_text("import _ic_inner")
    importlib.import_module("ic_outer")
    costs = clock.take_costs()
    assert list(costs) == ["ic_outer", "_ic_inner"]
    assert costs["ic_outer"] >= costs["_ic_inner"] >= 2 * MIN_SECONDS
    assert clock.take_costs() == {}


def test_what_costs_next_to_nothing_is_not_noted(
    installed: Path, clock: ImportClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed / "ic_cheap.py").write_text("")
    monkeypatch.setattr("palpable._zygote.import_costs.MIN_SECONDS", 60.0)
    importlib.import_module("ic_cheap")
    assert clock.costs == {}


def test_of_the_modules_in_a_package_those_are_noted_that_do_not_come_along_with_others(
    installed: Path, clock: ImportClock
) -> None:
    slow = f"import time\ntime.sleep({2 * MIN_SECONDS})\n"
    package = installed / "ic_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(slow)
    (package / "outer.py").write_text(slow + "import ic_package.inner")
    (installed / "ic_top.py").write_text(slow)
    (package / "other.py").write_text(slow + "import ic_top")
    importlib.import_module("ic_package.outer")
    importlib.import_module("ic_package.other")
    costs = clock.take_costs()
    assert [name for name in costs if name != "ic_package"] == ["ic_package.outer", "ic_package.other", "ic_top"]
    assert costs["ic_package.outer"] >= 4 * MIN_SECONDS


def test_an_import_that_fails_leaves_all_as_it_was(installed: Path, clock: ImportClock) -> None:
    (installed / "ic_broken.py").write_text("raise ValueError")
    (installed / "ic_pack").mkdir()
    (installed / "ic_pack" / "__init__.py").write_text("")
    (installed / "ic_pack" / "fine.py").write_text(f"import time\ntime.sleep({2 * MIN_SECONDS})")
    with pytest.raises(ValueError):
        importlib.import_module("ic_broken")
    importlib.import_module("ic_pack.fine")
    assert "ic_pack.fine" in clock.take_costs()


def test_what_a_client_needs_of_this_package_is_noted_too() -> None:
    """In a process of its own, which has not imported it yet."""
    script = (
        "import sys\n"
        "from palpable._zygote import import_costs\n"
        "import_costs.MIN_SECONDS = 0.0\n"
        "clock = import_costs.ImportClock()\n"
        "sys.meta_path.insert(0, clock)\n"
        "from palpable import Client\n"
        "print(*clock.take_costs())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "palpable.units.client" in done.stdout.split()


def test_modules_of_a_program_are_named_and_not_measured(
    installed: Path, tmp_path: Path, clock: ImportClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    (program / "ic_parts").mkdir(parents=True)
    (program / "ic_spaces").mkdir()
    (program / "ic_parts" / "__init__.py").write_text("")
    (program / "ic_parts" / "one.py").write_text("import ic_installed, ic_spaces.two")
    (program / "ic_spaces" / "two.py").write_text("")
    (installed / "ic_installed.py").write_text("")
    monkeypatch.syspath_prepend(str(program))
    names: list[str] = []
    clock.on_searched = lambda name, origin: names.append(f"{name} {Path(origin).name}")
    importlib.import_module("ic_parts.one")
    assert names == ["ic_parts __init__.py", "ic_parts.one one.py", "ic_spaces.two two.py"]
    assert clock.take_costs().keys() <= {"ic_installed"}
