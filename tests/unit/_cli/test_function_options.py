"""What a source shows of the options of a function, before anything is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from palpable._cli.function_options import is_surely_plain

SOURCE = """\
import functools
import palpable
from json import dumps, loads as parse

def plain(): ...
async def waiting(): ...
class Point:
    @staticmethod
    def origin(): ...
    @palpable.task(retries=1)
    def far(): ...
    def twice(): ...
    twice = palpable.task(twice)
class Other(Point): ...
@palpable.task(retries=3)
def decorated(): ...
@functools.cache
def cached(): ...
def wrapped(): ...
wrapped = palpable.task(wrapped)
def chosen(): ...
if functools:
    def chosen(): ...
def parse(): ...
made = palpable.task(len)
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "lib" / "inner").mkdir(parents=True)
    (tmp_path / "here.py").write_text(SOURCE)
    (tmp_path / "lib" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "lib" / "inner" / "deep.py").write_text("def plain(): ...")
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "starred.py").write_text("from here import *\ndef plain(): ...")
    return str(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "here:plain",
        "here:waiting",
        "here:Point",
        "here:Point.origin",
        "lib.inner.deep:plain",
        "math:sqrt",
        "os.path:getsize",
        "broken:any",
    ],
)
def test_a_function_that_is_defined_once_and_not_decorated_has_no_options(folder: str, path: str) -> None:
    assert is_surely_plain(path, folder)
    assert "lib" not in sys.modules


@pytest.mark.parametrize(
    "path",
    [
        "here:decorated",
        "here:cached",
        "here:wrapped",
        "here:chosen",
        "here:parse",
        "here:dumps",
        "here:made",
        "here:missing",
        "here:Point.far",
        "here:Point.twice",
        "here:Other.origin",
        "starred:plain",
        "nowhere:plain",
        "lib.nowhere:plain",
        "msgspec:to_builtins",
    ],
)
def test_where_anything_else_may_stand_behind_a_name_it_is_not_certain(folder: str, path: str) -> None:
    assert not is_surely_plain(path, folder)
