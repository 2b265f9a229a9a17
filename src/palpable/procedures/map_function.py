"""A procedure that calls one function for every param, each call in a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from palpable.procedures.procedure import Procedure

if TYPE_CHECKING:
    from palpable.units.messenger import Messenger


class MapFunction(Procedure):
    """Returns `[function(param) for param in params]`, in order; every call is a sub-task.

    The first failure is raised, as its own exception type.
    """

    def __init__(self, function: Callable[[Any], Any], params: Iterable[Any]) -> None:
        self.function = function
        self.params = list(params)

    def run(self, messenger: Messenger) -> list[Any]:
        return list(messenger.map(self.function, self.params))
