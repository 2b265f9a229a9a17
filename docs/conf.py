"""How the pages are built: `make docs`. Nothing is fetched while they are built or when they are read."""

from __future__ import annotations

import re

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import palpable

project = "Palpable"
author = "The Palpable authors"
copyright = author
version = release = palpable.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False  # type hints name private classes, which have no page

default_role = "code"  # what docstrings mean by single backticks

html_theme = "furo"
html_title = f"Palpable {version}"
html_show_sourcelink = False
html_copy_source = False

myst_heading_anchors = 3
# Links to what stands beside `docs` in the checkout: examples, benchmarks, sources. They are for readers of the files.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def collapse_options(
    app: Sphinx, what: str, name: str, thing: object, flags: object, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Show the options of tasks as `**options`: they are listed below, with what they mean."""
    if signature is None or "<unset>" not in signature:
        return None
    kept = re.sub(r"(?:\*, )?\w+: [^=]*? = <unset>(?:, )?", "", signature[1:-1]).removesuffix(", ")
    return f"({kept}, **options)" if kept else "(**options)", returned


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", collapse_options)
    # The drawing of a task's life: shown as the text it is. To draw it, a browser would have to fetch Mermaid.
    app.add_lexer("mermaid", TextLexer)
