"""Which options a function has that is known by its name alone: those of `@palpable.task(...)` above it.

The command line imports nothing of the user's. So a small task of its own imports the function, where it will run, and
tells; where the source shows that there are none, which is so for most functions, there is no such task.
"""

from __future__ import annotations

import ast
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palpable._cli.named_function import OptionsOfFunction
from palpable.units.task_exceptions import ServerUnreachable

if TYPE_CHECKING:
    from palpable.units.client import Client, ClientView

FIRST = 2**31 - 1
"""The highest priority: somebody waits, and it takes as long as the import."""
IMPORT_SECONDS = 60.0
"""What the import is given at least, also where a call is given less: with retries, a call may have more."""
HARMLESS = {"staticmethod", "classmethod"}


def view_for(
    client: Client, chosen: dict[str, Any], path: str, folder: str, *, is_here: bool, timeout_seconds: float | None
) -> ClientView:
    """Return a view with the options that a call of `path` has: those chosen, before those of the function.

    Waits for a free worker if the function may have options. Whatever keeps them from being found keeps the function
    from being called, too: that is left to the call, which says it.

    Args:
        chosen: as `Client.options` takes them.
        folder: where modules are looked for first, and the function runs.
        is_here: the folder of the server is the one here.
        timeout_seconds: what a call may take, and the import too, if that is no less than `IMPORT_SECONDS`; None: as
            long as the server lets tasks run.

    Raises:
        ServerUnreachable: there is no server any more.
    """
    view = client.options(**chosen)
    if is_here and is_surely_plain(path, folder):
        return view
    look = client.options(
        name=f"options of {path}"[:200],
        isolation="task",
        priority=FIRST,
        timeout_seconds=None if timeout_seconds is None else max(timeout_seconds, IMPORT_SECONDS),
        ends_with_client=True,
    )
    future = look.submit(OptionsOfFunction(path, folder))
    error = future.exception()
    if isinstance(error, ServerUnreachable):
        raise error
    if error is None:
        view._levels = view._levels.for_function(future.result())
    return view


def is_surely_plain(path: str, folder: str) -> bool:
    """Return whether the source shows that a function has no options; False if that is not certain.

    Reads files, and imports nothing.
    """
    module, _, name = path.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        return True
    source = _source_of(module, folder)
    if source is None:
        return False
    try:
        scope = ast.parse(source)
    except (SyntaxError, ValueError):
        return True  # it can't be imported either
    found: ast.AST | None = scope
    for part in name.split("."):
        found = None if found is None else _only_definition(found, part)
    return found is not None


def _only_definition(scope: ast.AST, name: str) -> ast.AST | None:
    """Return the one function or class of this name directly in a module or class, if nothing else can bind the name.

    None also if it is decorated.
    """
    bindings = 0
    for node in ast.walk(scope):
        if isinstance(node, ast.Name):
            bindings += node.id == name and not isinstance(node.ctx, ast.Load)
        elif isinstance(node, ast.alias):
            bindings += name == (node.asname or node.name).partition(".")[0] or node.name == "*"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node is not scope:
            bindings += node.name == name
    for node in getattr(scope, "body", ()):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            decorators = [item.id if isinstance(item, ast.Name) else "" for item in node.decorator_list]
            return node if bindings == 1 and HARMLESS.issuperset(decorators) else None
    return None


def _source_of(module: str, folder: str) -> bytes | None:
    """Return the source of a module; None: it is not found here, or has none.

    As the import system finds it, but without importing the packages it is in.
    """
    places = [folder or os.getcwd(), *(entry for entry in sys.path if entry)]
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        return Path(spec.origin).read_bytes()
    except OSError:
        return None
