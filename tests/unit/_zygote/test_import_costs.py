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
    names = done.stdout.split()
    assert names.index("palpable.units.client") < names.index("palpable._connection.address")
