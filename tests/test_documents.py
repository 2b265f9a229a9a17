"""The pages of the user guide do what they say, from top to bottom."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import palpable
from support.documents import run_page

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    for program in ("sqlite3", "openssl"):
        if f"$ {program} " in text and shutil.which(program) is None:
            pytest.skip(f"{program}, which the page uses, is not installed")
    run_page(text, tmp_path)


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    described = re.findall(r"^\.\. auto\w+:: palpable\.(\w+)$", text, re.MULTILINE)
    assert sorted(described) == sorted(name for name in palpable.__all__ if name != "__version__")
