"""A module that was made ready is what an import would have given, at the moment it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from palpable._zygote import prepared_modules
from palpable._zygote.prepared_modules import MAX_SEARCHED, PreparedModules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder at the head of `sys.path`; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "program"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def finder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedModules:
    """What is ready, where the import system finds it."""
    finder = PreparedModules()
    at = sys.meta_path.index(PathFinder)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path[:at], finder, *sys.meta_path[at:]])
    return finder


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


def is_ready(finder: PreparedModules, name: str) -> bool:
    return finder.find_spec(name, None) is not None


@pytest.fixture(params=["by a task's function", "by import"])
def take(request: pytest.FixtureRequest, finder: PreparedModules) -> Callable[[str], Any]:
    """Imports a module, in either way."""
    return finder.load if request.param == "by a task's function" else importlib.import_module


def test_nothing_of_a_module_runs_when_it_is_prepared(folder: Path, finder: PreparedModules) -> None:
    (folder / "pm_loud.py").write_text("raise SystemExit('it ran')")
    prepare(finder, "pm_loud")
    assert "pm_loud" not in sys.modules and is_ready(finder, "pm_loud")


def test_a_module_may_put_something_else_in_its_place(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules, read: list[str]
) -> None:
    (folder / "pm_other.py").write_text("import sys\nsys.modules[__name__] = 'something else'\n")
    (folder / "pm_no_spec.py").write_text("__spec__ = None\nVALUE = 1\n")
    prepare(finder, "pm_other", "pm_no_spec")
    assert take("pm_other") == "something else"
    assert take("pm_no_spec").VALUE == 1
    assert read == ["pm_other", "pm_no_spec"]


def test_packages_come_before_what_is_in_them(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules, read: list[str]
) -> None:
    (folder / "pm_package" / "inner").mkdir(parents=True)
    (folder / "pm_package" / "__init__.py").write_text("NAMES = ['package']\n")
    (folder / "pm_package" / "inner" / "__init__.py").write_text("from pm_package import NAMES\nNAMES.append('inner')")
    (folder / "pm_package" / "inner" / "deep.py").write_text("from .. import NAMES\nNAMES.append('deep')")
    prepare(finder, "pm_package.inner.deep")
    deep = take("pm_package.inner.deep")
    package = sys.modules["pm_package"]
    assert package.NAMES == ["package", "inner", "deep"]
    assert package.inner.deep is deep and len(read) == 3


def test_a_file_that_comes_to_hide_a_module_is_seen(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = folder / "earlier"
    earlier.mkdir()
    (folder / "pm_hidden.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(earlier))
    prepare(finder, "pm_hidden")
    assert is_ready(finder, "pm_hidden")
    (earlier / "pm_hidden.py").write_text("VALUE = 2\n")
    assert take("pm_hidden").VALUE == 2


def test_a_folder_that_was_not_there_and_is_now_is_seen(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder / "later"))
    (folder / "pm_late_folder.py").write_text("VALUE = 1\n")
    prepare(finder, "pm_late_folder")
    assert is_ready(finder, "pm_late_folder")
    (folder / "later").mkdir()
    (folder / "later" / "pm_late_folder.py").write_text("VALUE = 2\n")
    importlib.invalidate_caches()
    assert take("pm_late_folder").VALUE == 2


def test_a_folder_that_is_gone_hides_nothing(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "earlier").mkdir()
    monkeypatch.syspath_prepend(str(folder / "earlier"))
    (folder / "pm_left.py").write_text("VALUE = 1\n")
    prepare(finder, "pm_left")
    (folder / "earlier").rmdir()
    assert is_ready(finder, "pm_left")


def test_a_file_that_hides_nothing_changes_nothing(folder: Path, finder: PreparedModules) -> None:
    (folder / "pm_beside.py").write_text("VALUE = 1\n")
    prepare(finder, "pm_beside")
    (folder / "results.csv").write_text("1, 2\n")
    assert is_ready(finder, "pm_beside")


@pytest.mark.parametrize("suffix", [*EXTENSION_SUFFIXES, ""])
def test_what_would_be_found_first_in_the_same_folder_is_seen(
    folder: Path, finder: PreparedModules, suffix: str
) -> None:
    (folder / "pm_late.py").write_text("VALUE = 1\n")
    (folder / "pm_full").mkdir()
    (folder / "pm_full" / "__init__.py").write_text("VALUE = 1\n")
    prepare(finder, "pm_late", "pm_full")
    assert is_ready(finder, "pm_late") and is_ready(finder, "pm_full")
    (folder / f"pm_late{suffix}").mkdir()
    assert not is_ready(finder, "pm_late")
    if suffix:
        (folder / "pm_full" / f"__init__{suffix}").touch()
        assert not is_ready(finder, "pm_full")


def test_a_folder_that_could_become_a_package_leaves_the_module_to_the_import_system(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    (folder / "pm_folder.py").write_text("VALUE = 'module'\n")
    (folder / "pm_folder").mkdir()
    prepare(finder, "pm_folder")
    (folder / "pm_folder" / "__init__.py").write_text("VALUE = 'package'\n")
    assert take("pm_folder").VALUE == "package"


def test_another_file_with_the_same_time_is_seen(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    source, other = folder / "pm_replaced.py", folder / "other"
    source.write_text("VALUE = 1\n")
    prepare(finder, "pm_replaced")
    other.write_text("VALUE = 22\n")
    os.utime(other, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    other.rename(source)
    assert take("pm_replaced").VALUE == 22


def test_a_task_that_changes_the_search_path_imports_by_itself(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pm_path.py").write_text("VALUE = 1\n")
    prepare(finder, "pm_path")
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    assert not is_ready(finder, "pm_path")


@pytest.mark.parametrize(
    "name", ["pm_nowhere", "pm_spaces.part", "_decimal", "pm_wrong", "pm_huge", "", ".", "os.nothing"]
)
def test_what_is_no_plain_source_file_is_left_to_the_import_system(
    folder: Path, finder: PreparedModules, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_modules, "MAX_SOURCE_BYTES", 100)
    (folder / "pm_spaces").mkdir()
    (folder / "pm_spaces" / "part.py").write_text("VALUE = 1\n")
    (folder / "pm_wrong.py").write_text("this is no Python\n")
    (folder / "pm_huge.py").write_text("#" * 101)
    monkeypatch.delitem(sys.modules, "_decimal", raising=False)
    prepare(finder, name)
    assert not is_ready(finder, name)


def test_what_a_task_puts_in_the_place_of_calls_to_the_system_is_not_called(
    folder: Path, finder: PreparedModules
) -> None:
    (folder / "pm_tested.py").write_text("VALUE = 1\n")
    prepare(finder, "pm_tested")
    with mock.patch("os.stat") as stat, mock.patch("os.getcwd") as getcwd, mock.patch("os.path.exists") as exists:
        assert is_ready(finder, "pm_tested")
    assert not stat.called and not getcwd.called and not exists.called


@pytest.mark.parametrize("first", ["pm_first.py", "pm_first/__init__.py"])
def test_what_the_import_system_has_seen_is_forgotten(folder: Path, finder: PreparedModules, first: str) -> None:
    (folder / first).parent.mkdir(exist_ok=True)
    (folder / first).write_text("VALUE = 1\n")
    prepare(finder, "pm_first")
    before = folder.stat()
    (folder / "pm_second.py").write_text("VALUE = 2\n")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # as in one tick of a coarse clock
    assert importlib.import_module("pm_second").VALUE == 2


def test_what_a_module_imports_is_ready_too(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules, read: list[str]
) -> None:
    (folder / "pf_outer.py").write_text("import pf_inner\nfrom pf_package.part import VALUE\n")
    (folder / "pf_inner.py").write_text("VALUE = 1\n")
    (folder / "pf_package").mkdir()
    (folder / "pf_package" / "__init__.py").write_text("SIZE = 4\n")
    (folder / "pf_package" / "part.py").write_text("from . import SIZE\nVALUE = 2 * SIZE\n")
    prepare(finder, "pf_outer", "pf_inner", "pf_package.part")
    assert sorted(read) == ["pf_inner", "pf_outer", "pf_package", "pf_package.part"]
    module = take("pf_outer")
    assert (module.pf_inner.VALUE, module.VALUE) == (1, 8)
    assert sys.modules["pf_package"].part is sys.modules["pf_package.part"]
    assert len(read) == 4, "none was read again"


def test_a_module_that_was_ready_is_like_one_that_was_not(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    (folder / "pf_like.py").write_text('"""Says so."""\nVALUE = 3\n')
    prepare(finder, "pf_like")
    ready = take("pf_like")
    del sys.modules["pf_like"]
    searched = take("pf_like")
    assert searched is not ready, "its code ran in a new module"
    assert set(vars(searched)) == set(vars(ready))
    assert ready.__spec__ == searched.__spec__
    assert ready.__spec__ is not None and searched.__spec__ is not None
    assert not ready.__spec__._initializing  # type: ignore[attr-defined]
    assert vars(ready.__loader__) == vars(searched.__loader__)
    assert ready.__loader__.get_source("pf_like") == (folder / "pf_like.py").read_text()  # type: ignore[union-attr]


def test_to_reload_a_module_runs_it_again_as_its_file_is_then(
    folder: Path, finder: PreparedModules, read: list[str]
) -> None:
    (folder / "pf_reloaded.py").write_text("VALUE = globals().get('VALUE', 0) + 1\n")
    prepare(finder, "pf_reloaded")
    module = importlib.import_module("pf_reloaded")
    assert importlib.reload(module) is module
    assert module.VALUE == 2 and read == ["pf_reloaded"]
    (folder / "pf_reloaded.py").write_text("VALUE = 'edited'\n")
    assert importlib.reload(module).VALUE == "edited"


def test_to_ask_where_a_module_is_takes_nothing_away(folder: Path, finder: PreparedModules, read: list[str]) -> None:
    (folder / "pf_asked.py").write_text("VALUE = 1\n")
    prepare(finder, "pf_asked")
    spec = importlib.util.find_spec("pf_asked")
    assert spec is not None and spec.origin == str(folder / "pf_asked.py") and "pf_asked" not in sys.modules
    assert runpy.run_module("pf_asked")["VALUE"] == 1
    one, other = (
        importlib.util.module_from_spec(spec) for spec in (spec, importlib.util.find_spec("pf_asked")) if spec
    )
    assert one is not other and one.__spec__ is not other.__spec__
    assert importlib.import_module("pf_asked").VALUE == 1
    assert read == ["pf_asked"]


def test_a_module_that_raises_can_be_imported_later(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    (folder / "pf_moody.py").write_text(
        "import os\nif 'PF_MOOD' not in os.environ: raise ValueError('bad')\nVALUE = 1\n"
    )
    prepare(finder, "pf_moody")
    with pytest.raises(ValueError, match="bad") as caught:
        take("pf_moody")
    assert [
        Path(entry.path).name
        for entry in caught.traceback
        if entry.name != "load" and "importlib" not in str(entry.path)
    ] == [
        Path(__file__).name,
        "pf_moody.py",
    ]
    assert "pf_moody" not in sys.modules
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PF_MOOD", "good")
        assert take("pf_moody").VALUE == 1


def test_modules_that_import_each_other_are_told_so(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    (folder / "pf_hen.py").write_text("from pf_egg import EGG\nHEN = 1\n")
    (folder / "pf_egg.py").write_text("from pf_hen import HEN\nEGG = 1\n")
    prepare(finder, "pf_hen", "pf_egg")
    with pytest.raises(ImportError, match=r"partially initialized module 'pf_hen'.*circular import"):
        take("pf_hen")


def test_a_changed_file_is_searched_for_and_said(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    source = folder / "pf_changed.py"
    source.write_text("VALUE = 1\n")
    prepare(finder, "pf_changed")
    finder.note_searched("pf_changed", str(source))
    assert finder.take_searched() == [], "the task searches in a way of its own"
    source.write_text("VALUE = 22\n")
    assert take("pf_changed").VALUE == 22
    finder.note_searched("pf_changed", str(source))
    assert finder.take_searched() == ["pf_changed"]
    del sys.modules["pf_changed"]
    prepare(finder, "pf_changed")
    assert is_ready(finder, "pf_changed")


def test_a_removed_file_is_not_found(take: Callable[[str], Any], folder: Path, finder: PreparedModules) -> None:
    (folder / "pf_removed.py").write_text("VALUE = 1\n")
    prepare(finder, "pf_removed")
    (folder / "pf_removed.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="pf_removed"):
        take("pf_removed")


def test_a_package_that_says_where_its_parts_are_is_asked(
    take: Callable[[str], Any], folder: Path, finder: PreparedModules
) -> None:
    (folder / "pf_moved").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "pf_moved" / "__init__.py").write_text(f"__path__.insert(0, {str(folder / 'elsewhere')!r})\n")
    (folder / "pf_moved" / "part.py").write_text("VALUE = 'here'\n")
    (folder / "elsewhere" / "part.py").write_text("VALUE = 'elsewhere'\n")
    prepare(finder, "pf_moved.part")
    assert take("pf_moved.part").VALUE == "elsewhere"


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
    finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(finder, "pf_unfit")
    for name in ("pf_unfit", "pf_new", "pf_new", "pf_other", "pf-dashed", "pf_caf\udce9", "pf_" + "x" * 300):
        finder.note_searched(name, "")
    assert finder.take_searched() == ["pf_new", "pf_other"]
    assert finder.take_searched() == []
    for number in range(2 * MAX_SEARCHED):
        finder.note_searched(f"pf_{number}", "")
    assert len(finder.take_searched()) == MAX_SEARCHED
    monkeypatch.setattr(prepared_modules, "MAX_BY_SEARCH", 1)
    finder.note_searched("pf_new", "")
    assert finder.take_searched() == [], "there is no room for it"


def test_a_module_with_a_mistake_is_tried_again_when_that_is_mended(folder: Path, finder: PreparedModules) -> None:
    source = folder / "pf_mended.py"
    source.write_text("this is no Python\n")
    prepare(finder, "pf_mended")
    finder.note_searched("pf_mended", str(source))
    assert finder.take_searched() == []
    source.write_text("VALUE = 1\n")
    finder.note_searched("pf_mended", str(source))
    assert finder.take_searched() == ["pf_mended"]
    prepare(finder, "pf_mended")
    assert is_ready(finder, "pf_mended")
    source.write_text("once more no Python\n")
    prepare(finder, "pf_mended")
    finder.note_searched("pf_mended", str(source))
    assert finder.take_searched() == [] and not is_ready(finder, "pf_mended")


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
    importlib.import_module("pf_checked.part")
    assert read == ["pf_checked", "pf_checked.part", "pf_checked.part"]


def test_a_finder_that_comes_to_find_a_module_is_asked_first(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that libraries have for what is to be changed when it is imported."""
    other = SourceFileLoader("pf_watched", str(folder / "pf_other.py"))
    registry: dict[str, object] = {}
    watcher = mock.Mock(find_spec=lambda name, path, target=None: registry.get(name))
    monkeypatch.setattr(sys, "meta_path", [watcher, *sys.meta_path])
    for name in ("pf_watched", "pf_other"):
        (folder / f"{name}.py").write_text(f"VALUE = {name!r}\n")
    prepare(finder, "pf_watched")
    assert is_ready(finder, "pf_watched")
    registry["pf_watched"] = importlib.util.spec_from_loader("pf_watched", other)
    assert importlib.import_module("pf_watched").VALUE == "pf_other"


def test_a_finder_behind_the_search_of_folders_changes_nothing(
    folder: Path, finder: PreparedModules, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    """As six has one."""
    (folder / "pf_early.py").write_text("")
    prepare(finder, "pf_early")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Watcher])
    importlib.import_module("pf_early")
    assert read == ["pf_early"]
