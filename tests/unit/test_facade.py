"""`from palpable import ...`: one table of names and their homes."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import palpable
from palpable.units import task_exceptions

TABLE = palpable._HOMES


def test_what_is_listed_is_what_can_be_had() -> None:
    assert sorted(palpable.__all__) == sorted(["__version__", *TABLE])
    assert set(palpable.__all__) <= set(dir(palpable))


@pytest.mark.parametrize("name", TABLE)
def test_every_name_is_defined_in_its_home(name: str) -> None:
    value = getattr(palpable, name)
    assert value is getattr(importlib.import_module(TABLE[name]), name)
    assert value.__module__ == TABLE[name]


def test_every_error_is_in_the_facade() -> None:
    assert set(task_exceptions.__all__) <= set(TABLE)


def test_type_checkers_see_the_same_names_in_the_same_homes() -> None:
    tree = ast.parse(Path(palpable.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == TABLE


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sever'"):
        _ = palpable.Sever  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from palpable import Sever")


def test_the_version_is_written_out() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", palpable.__version__)
