"""A module that was made ready is what an import would have given, at the moment it is needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from palpable._zygote.prepared_modules import PreparedModules


class NotReady(Exception):
    """Raised in place of an ordinary import."""


def refuse(name: str) -> object:
    raise NotReady(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder at the head of `sys.path`; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def prepared(name: str) -> PreparedModules:
    importlib.invalidate_caches()
    modules = PreparedModules((), refuse)
    modules.prepare(name)
    return modules


def test_nothing_of_a_module_runs_when_it_is_prepared(folder: Path) -> None:
    (folder / "pm_loud.py").write_text("raise SystemExit('it ran')")
    prepared("pm_loud")
    assert "pm_loud" not in sys.modules


def test_a_prepared_module_is_like_an_imported_one(folder: Path) -> None:
    (folder / "pm_plain.py").write_text('"""Says so."""\nimport os\nVALUE = 3\ndef double(x): return 2 * x\n')
    module = prepared("pm_plain").load("pm_plain")
    assert (module.VALUE, module.double(4), module.__doc__, module.os) == (3, 8, "Says so.", os)
    del sys.modules["pm_plain"]
    imported = importlib.import_module("pm_plain")
    assert set(vars(module)) == set(vars(imported))
    for name in ("__name__", "__file__", "__cached__", "__package__"):
        assert getattr(module, name) == getattr(imported, name)
    assert module.__spec__ == imported.__spec__
    assert not module.__spec__._initializing


def test_a_module_that_is_loaded_already_is_taken_as_it_is() -> None:
    assert prepared("os.path").load("os.path") is os.path


def test_packages_come_before_what_is_in_them(folder: Path) -> None:
    (folder / "pm_package" / "inner").mkdir(parents=True)
    (folder / "pm_package" / "__init__.py").write_text("NAMES = ['package']\n")
    (folder / "pm_package" / "inner" / "__init__.py").write_text("from pm_package import NAMES\nNAMES.append('inner')")
    (folder / "pm_package" / "inner" / "deep.py").write_text("from .. import NAMES\nNAMES.append('deep')")
    deep = prepared("pm_package.inner.deep").load("pm_package.inner.deep")
    package = sys.modules["pm_package"]
    assert package.NAMES == ["package", "inner", "deep"]
    assert package.inner.deep is deep


def test_a_package_may_import_its_own_parts(folder: Path) -> None:
    (folder / "pm_eager").mkdir()
    (folder / "pm_eager" / "__init__.py").write_text("from pm_eager.part import VALUE\n")
    (folder / "pm_eager" / "part.py").write_text("VALUE = 5\n")
    part = prepared("pm_eager.part").load("pm_eager.part")
    assert part is sys.modules["pm_eager.part"]
    assert part.VALUE == sys.modules["pm_eager"].VALUE == 5


def test_a_module_that_raises_is_not_imported(folder: Path) -> None:
    (folder / "pm_broken.py").write_text("1 / 0\n")
    modules = prepared("pm_broken")
    with pytest.raises(ZeroDivisionError):
        modules.load("pm_broken")
    assert "pm_broken" not in sys.modules


def test_a_module_may_put_something_else_in_its_place(folder: Path) -> None:
    (folder / "pm_other.py").write_text("import sys\nsys.modules[__name__] = 'something else'\n")
    assert prepared("pm_other").load("pm_other") == "something else"


def test_a_changed_file_is_left_to_the_import_system(folder: Path) -> None:
    source = folder / "pm_changed.py"
    source.write_text("VALUE = 1\n")
    modules = prepared("pm_changed")
    source.write_text("VALUE = 2\n")
    os.utime(source, ns=(1, 1))
    with pytest.raises(NotReady):
        modules.load("pm_changed")
    importlib.invalidate_caches()
    modules.prepare("pm_changed")
    assert modules.load("pm_changed").VALUE == 2


def test_a_file_that_comes_to_hide_a_module_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = folder / "earlier"
    earlier.mkdir()
    (folder / "pm_hidden.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(earlier))
    modules = prepared("pm_hidden")
    (earlier / "pm_hidden.py").write_text("VALUE = 2\n")
    os.utime(earlier, ns=(1, 1))
    with pytest.raises(NotReady):
        modules.load("pm_hidden")


def test_a_file_that_hides_nothing_changes_nothing(folder: Path) -> None:
    (folder / "pm_beside.py").write_text("VALUE = 1\n")
    modules = prepared("pm_beside")
    (folder / "results.csv").write_text("1, 2\n")
    os.utime(folder, ns=(1, 1))
    assert modules.load("pm_beside").VALUE == 1


@pytest.mark.parametrize("suffix", [*EXTENSION_SUFFIXES, ""])
def test_what_would_be_found_first_in_the_same_folder_is_seen(folder: Path, suffix: str) -> None:
    (folder / "pm_late.py").write_text("VALUE = 1\n")
    modules = prepared("pm_late")
    (folder / f"pm_late{suffix}").mkdir()
    os.utime(folder, ns=(1, 1))
    with pytest.raises(NotReady):
        modules.load("pm_late")


def test_a_task_that_changes_the_search_path_imports_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pm_path.py").write_text("VALUE = 1\n")
    modules = prepared("pm_path")
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    with pytest.raises(NotReady):
        modules.load("pm_path")


@pytest.mark.parametrize("name", ["pm_nowhere", "pm_spaces.part", "_decimal", "pm_wrong", "", ".", "os.nothing"])
def test_what_is_no_plain_source_file_is_left_to_the_import_system(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pm_spaces").mkdir()
    (folder / "pm_spaces" / "part.py").write_text("VALUE = 1\n")
    (folder / "pm_wrong.py").write_text("this is no Python\n")
    monkeypatch.delitem(sys.modules, "_decimal", raising=False)
    with pytest.raises(NotReady):
        prepared(name).load(name)
