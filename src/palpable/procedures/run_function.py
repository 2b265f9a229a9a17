"""A procedure that calls one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from palpable.procedures.procedure import Procedure

if TYPE_CHECKING:
    from palpable.units.messenger import Messenger


class RunFunction(Procedure):
    """Calls `function(*args, **kwargs)` in a task; its return value is the result.

    Example:
        >>> RunFunction(pow, 2, 10).run(None)
        1024
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def run(self, messenger: Messenger) -> Any:
        return self.function(*self.args, **self.kwargs)
