"""The names by which classes of errors are compared across processes, which share no classes.

Runs in: clients, which name what is to be retried; task processes, which name what was raised.
"""

from __future__ import annotations

from palpable._wire.sendable_text import sendable


def class_name(kind: type) -> str:
    """Return "module.qualname", also for what is built in: "builtins.ValueError".

    A class of a script is `__main__.Name` in the task too, though it travelled by value.
    """
    return sendable(f"{kind.__module__}.{kind.__qualname__}")


def names_of_bases(kind: type) -> tuple[str, ...]:
    """Return the names of `kind` and of all its bases, `object` aside, in the order in which Python looks at them.

    Example:
        >>> names_of_bases(LookupError)
        ('builtins.LookupError', 'builtins.Exception', 'builtins.BaseException')
    """
    return tuple(class_name(base) for base in kind.__mro__ if base is not object)
