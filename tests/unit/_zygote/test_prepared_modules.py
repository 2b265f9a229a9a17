"""A module that was made ready is what an import would have given, at the moment it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SourceFileLoader
from pathlib import Path

import pytest

from palpable._zygote.prepared_modules import MAX_SEARCHED, PreparedModules


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


# --- as a finder of the import system -----------------------------------------------------------------------------


@pytest.fixture
def finder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedModules:
    """What is ready, with the import system asking it first, and importing the rest."""
    modules = PreparedModules((), importlib.import_module)
    monkeypatch.setattr(sys, "meta_path", [modules, *sys.meta_path])
    return modules


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were read from their files."""
    read: list[str] = []
    get_code = SourceFileLoader.get_code

    def note(loader: SourceFileLoader, name: str) -> object:
        read.append(name)
        return get_code(loader, name)

    monkeypatch.setattr(SourceFileLoader, "get_code", note)
    return read


def prepare(finder: PreparedModules, *names: str) -> None:
    importlib.invalidate_caches()
    for name in names:
        finder.prepare(name)


def test_what_a_module_imports_is_ready_too(folder: Path, finder: PreparedModules, read: list[str]) -> None:
    (folder / "pf_outer.py").write_text("import pf_inner\nfrom pf_package.part import VALUE\n")
    (folder / "pf_inner.py").write_text("VALUE = 1\n")
    (folder / "pf_package").mkdir()
    (folder / "pf_package" / "__init__.py").write_text("SIZE = 4\n")
    (folder / "pf_package" / "part.py").write_text("from . import SIZE\nVALUE = 2 * SIZE\n")
    prepare(finder, "pf_outer", "pf_inner", "pf_package.part")
    assert sorted(read) == ["pf_inner", "pf_outer", "pf_package", "pf_package.part"]
    module = finder.load("pf_outer")
    assert (module.pf_inner.VALUE, module.VALUE) == (1, 8)
    assert sys.modules["pf_package"].part is sys.modules["pf_package.part"]
    assert len(read) == 4, "none was read again"


def test_a_module_that_was_ready_is_like_one_that_was_not(folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_like.py").write_text('"""Says so."""\nVALUE = 3\n')
    prepare(finder, "pf_like")
    ready = importlib.import_module("pf_like")
    del sys.modules["pf_like"]
    searched = importlib.import_module("pf_like")
    assert searched is not ready, "its code ran in a new module"
    assert set(vars(searched)) == set(vars(ready))
    assert ready.__spec__ == searched.__spec__
    assert ready.__spec__ is not None and searched.__spec__ is not None
    assert not ready.__spec__._initializing  # type: ignore[attr-defined]
    assert vars(ready.__loader__) == vars(searched.__loader__)
    assert ready.__loader__.get_source("pf_like") == (folder / "pf_like.py").read_text()  # type: ignore[union-attr]


def test_to_reload_a_module_reads_it_again(folder: Path, finder: PreparedModules, read: list[str]) -> None:
    (folder / "pf_reloaded.py").write_text("VALUE = globals().get('VALUE', 0) + 1\n")
    prepare(finder, "pf_reloaded")
    module = importlib.import_module("pf_reloaded")
    assert importlib.reload(module) is module
    assert module.VALUE == 2 and read == ["pf_reloaded"] * 2


def test_to_ask_where_a_module_is_takes_nothing_away(folder: Path, finder: PreparedModules, read: list[str]) -> None:
    (folder / "pf_asked.py").write_text("VALUE = 1\n")
    prepare(finder, "pf_asked")
    spec = importlib.util.find_spec("pf_asked")
    assert spec is not None and spec.origin == str(folder / "pf_asked.py") and "pf_asked" not in sys.modules
    assert runpy.run_module("pf_asked")["VALUE"] == 1
    assert importlib.import_module("pf_asked").VALUE == 1
    assert read == ["pf_asked"]


def test_a_module_that_raises_can_be_imported_later(folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_moody.py").write_text(
        "import os\nif 'PF_MOOD' not in os.environ: raise ValueError('bad')\nVALUE = 1\n"
    )
    prepare(finder, "pf_moody")
    with pytest.raises(ValueError, match="bad") as caught:
        importlib.import_module("pf_moody")
    assert [Path(entry.path).name for entry in caught.traceback if "importlib" not in str(entry.path)] == [
        Path(__file__).name,
        "pf_moody.py",
    ]
    assert "pf_moody" not in sys.modules
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PF_MOOD", "good")
        assert importlib.import_module("pf_moody").VALUE == 1


def test_modules_that_import_each_other_are_told_so(folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_hen.py").write_text("from pf_egg import EGG\nHEN = 1\n")
    (folder / "pf_egg.py").write_text("from pf_hen import HEN\nEGG = 1\n")
    prepare(finder, "pf_hen", "pf_egg")
    with pytest.raises(ImportError, match=r"partially initialized module 'pf_hen'.*circular import"):
        importlib.import_module("pf_hen")


def test_a_changed_file_is_searched_for_and_said(folder: Path, finder: PreparedModules) -> None:
    source = folder / "pf_changed.py"
    source.write_text("VALUE = 1\n")
    prepare(finder, "pf_changed")
    source.write_text("VALUE = 22\n")
    os.utime(source, ns=(1, 1))
    assert importlib.import_module("pf_changed").VALUE == 22
    assert finder.take_searched() == ["pf_changed"]
    del sys.modules["pf_changed"]
    prepare(finder, "pf_changed")
    assert finder.find_spec("pf_changed", None) is not None
    assert finder.take_searched() == []


def test_a_removed_file_is_not_found(folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_removed.py").write_text("VALUE = 1\n")
    prepare(finder, "pf_removed")
    (folder / "pf_removed.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="pf_removed"):
        importlib.import_module("pf_removed")


def test_a_package_that_says_where_its_parts_are_is_asked(folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_moved").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "pf_moved" / "__init__.py").write_text(f"__path__.insert(0, {str(folder / 'elsewhere')!r})\n")
    (folder / "pf_moved" / "part.py").write_text("VALUE = 'here'\n")
    (folder / "elsewhere" / "part.py").write_text("VALUE = 'elsewhere'\n")
    prepare(finder, "pf_moved.part")
    assert finder.load("pf_moved.part").VALUE == "elsewhere"


def test_the_current_folder_is_that_of_the_moment(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "pf_current.py").write_text(f"VALUE = {name!r}\n")
    monkeypatch.syspath_prepend("")
    monkeypatch.chdir(folder / "one")
    prepare(finder, "pf_current")
    monkeypatch.chdir(folder / "two")
    assert importlib.import_module("pf_current").VALUE == "two"
    del sys.modules["pf_current"]
    monkeypatch.chdir(folder / "one")
    spec = finder.find_spec("pf_current", None)
    assert spec is not None and spec.origin == str(folder / "one" / "pf_current.py")


def test_what_was_searched_for_is_said_once_and_not_if_it_is_known_to_be_unfit(
    folder: Path, finder: PreparedModules
) -> None:
    prepare(finder, "pf_unfit")
    for name in ("pf_unfit", "pf_new", "pf_new", "pf_other", "pf-dashed", "pf_caf\udce9", "pf_" + "x" * 300):
        finder.note_searched(name)
    assert finder.take_searched() == ["pf_new", "pf_other"]
    assert finder.take_searched() == []
    for number in range(2 * MAX_SEARCHED):
        finder.note_searched(f"pf_{number}")
    assert len(finder.take_searched()) == MAX_SEARCHED


def test_a_module_with_a_mistake_is_tried_again_when_that_is_mended(folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_mended.py").write_text("this is no Python\n")
    prepare(finder, "pf_mended")
    finder.note_searched("pf_mended")
    assert finder.take_searched() == ["pf_mended"]
    (folder / "pf_mended.py").write_text("VALUE = 1\n")
    prepare(finder, "pf_mended")
    assert finder.find_spec("pf_mended", None) is not None


class Watcher:
    """A finder that finds nothing, and could; as a hook it leaves each folder to the others."""

    def __init__(self, path: str) -> None:
        raise ImportError

    @staticmethod
    def find_spec(name: str, path: object, target: object = None) -> None:
        return None


@pytest.mark.parametrize("way", ["meta_path", "path_hooks"])
def test_a_package_that_changes_how_is_searched_has_its_parts_searched_for(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch, read: list[str], way: str
) -> None:
    """As beartype and typeguard do."""
    monkeypatch.setattr(sys, "path_hooks", [*sys.path_hooks])
    (folder / "pf_checked").mkdir()
    (folder / "pf_checked" / "__init__.py").write_text(f"import sys\nsys.{way}.insert(0, sys.modules['pf_watcher'])\n")
    (folder / "pf_checked" / "part.py").write_text("")
    monkeypatch.setitem(sys.modules, "pf_watcher", Watcher)  # type: ignore[arg-type]
    prepare(finder, "pf_checked.part")
    finder.load("pf_checked.part")
    assert read == ["pf_checked", "pf_checked.part", "pf_checked.part"]


def test_a_finder_behind_the_search_of_folders_changes_nothing(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    """As six has one."""
    (folder / "pf_early.py").write_text("")
    prepare(finder, "pf_early")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Watcher])
    importlib.import_module("pf_early")
    assert read == ["pf_early"]
