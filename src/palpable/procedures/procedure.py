"""What a task does, as an object: its parameters, and a `run` that is called in the task's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palpable.units.messenger import Messenger


class Procedure:
    """Subclass it: keep the parameters in `__init__`, do the work in `run`.

    An attribute is set once; to set it again to another value is an AttributeError. So what a task was asked to do
    can be read from its procedure at any later time.

    Example:
        >>> class Add(Procedure):
        ...     def __init__(self, a, b):
        ...         self.a, self.b = a, b
        ...
        ...     def run(self, messenger):
        ...         return self.a + self.b
    """

    def run(self, messenger: Messenger) -> Any:
        """Do the work, in the task's process; what it returns is the result of the task.

        Raise `TaskFailed("why")` for an expected failure. Any other exception is an unexpected one.

        Args:
            messenger: the task's line to its server: logging, progress, sub-tasks.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define run(self, messenger)")

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            held = self.__dict__[name]
        except KeyError:
            super().__setattr__(name, value)
            return
        if not _is_same(held, value):
            raise AttributeError(
                f"{type(self).__qualname__}.{name} is set already, and an attribute of a procedure is set once. "
                f"Use a local variable in run(), or make a new procedure."
            )


def _is_same(held: Any, value: Any) -> bool:
    if held is value:
        return True
    try:
        return type(held) is type(value) and bool(held == value)
    except Exception:  # e.g. arrays, whose comparison is no single answer
        return False
