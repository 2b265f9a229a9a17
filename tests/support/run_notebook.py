"""Run the cells of a notebook one after the other, as a kernel would, and print what each gives, as JSON.

Usage: python run_notebook.py NOTEBOOK      A list for each cell of code: what it printed, and its last value.

What the cells define is of `__main__`, as in a kernel. There is no IPython: no magic, no display.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run_cell(source: str, namespace: dict[str, Any]) -> tuple[str, str | None]:
    """Return what the cell printed, and the repr of the expression it ends with, if that is not None."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    return printed.getvalue(), None if value is None else repr(value)


if __name__ == "__main__":
    cells = json.loads(Path(sys.argv[1]).read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    print(json.dumps([run_cell(source, globals()) for source in sources]))
